"""The four Candid encodings that are signed or hashed, byte for byte as Rust's `candid` crate emits them.

Candid is not canonical. Rust gives a type its table index when it is first met: the outer record first, then
its fields in the order of their hashed labels. Signatures cover exactly these bytes, so they are written out
here as constant headers and fixed by vectors (tests/vectors/candid.json). Source: DESIGN, section 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from protocol.types import Funding, Params, State, WithdrawalRequest

__all__ = ["encode_funding", "encode_params", "encode_state", "encode_withdrawal_request", "uleb128"]

STATE_HEADER: Final = bytes.fromhex("4449444c036c0498cec7e7077886ca8aee097ea0ccd8fa0b01c381c8e60c026d7d6d7b0100")
"""record { version; finalized; allocation : vec nat; channel : blob }"""
PARAMS_HEADER: Final = bytes.fromhex("4449444c036c03e0eaf28e0101f0dbb7e30978ef9999fe09026d026d7b0100")
"""record { participants : vec blob; challenge_duration; nonce : blob }"""
WITHDRAWAL_HEADER: Final = bytes.fromhex("4449444c036c02af8af5970e68bdf5ae8e0f016c02b38fa8d70702c381c8e60c026d7b0100")
"""record { receiver : principal; funding : record { participant; channel } }"""
FUNDING_HEADER: Final = bytes.fromhex("4449444c026c02b38fa8d70701c381c8e60c016d7b0100")
"""record { participant : blob; channel : blob }"""


def uleb128(number: int) -> bytes:
    """Return the shortest unsigned LEB128 of a natural number."""
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _blob(value: bytes) -> bytes:
    return uleb128(len(value)) + value


def encode_state(state: State) -> bytes:
    """Return the bytes that participants sign for a state."""
    return b"".join(
        (
            STATE_HEADER,
            state.version.to_bytes(8, "little"),
            b"\x01\x02" if state.finalized else b"\x00\x02",
            uleb128(state.allocation[0]),
            uleb128(state.allocation[1]),
            b"\x40",
            state.channel,
        )
    )


def encode_params(params: Params) -> bytes:
    """Return the bytes whose SHA-512 is the channel id."""
    return b"".join(
        (
            PARAMS_HEADER,
            b"\x02",
            *(_blob(key) for key in params.participants),
            params.challenge_duration_ns.to_bytes(8, "little"),
            _blob(params.nonce),
        )
    )


def encode_funding(funding: Funding) -> bytes:
    """Return the bytes whose SHA-512 begins with the deposit memo."""
    return FUNDING_HEADER + _blob(funding.participant) + _blob(funding.channel)


def encode_withdrawal_request(request: WithdrawalRequest) -> bytes:
    """Return the bytes that authorise a withdrawal."""
    return b"".join(
        (
            WITHDRAWAL_HEADER,
            b"\x01",
            _blob(request.receiver),
            _blob(request.funding.participant),
            _blob(request.funding.channel),
        )
    )
