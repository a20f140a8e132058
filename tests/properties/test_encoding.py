"""`protocol.encoding` equals an encoder that builds the type table, for every value."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from protocol import encoding
from protocol.types import (
    MAX_CHALLENGE_NS,
    MAX_NAT64,
    MIN_CHALLENGE_NS,
    ChannelId,
    Funding,
    Nanos,
    Params,
    ParticipantKey,
    State,
    WithdrawalRequest,
)
from tests.unit.protocol import rust_candid

channels = st.binary(min_size=64, max_size=64).map(ChannelId)
keys = st.binary(min_size=32, max_size=32).map(ParticipantKey)
fundings = st.builds(Funding, channels, keys)
nat64 = st.integers(0, MAX_NAT64) | st.sampled_from([0, 127, 128, 2**14 - 1, 2**14, 2**63, MAX_NAT64])


@st.composite
def allocations(draw: st.DrawFn) -> tuple[int, int]:
    first = draw(nat64)
    return first, draw(st.integers(0, MAX_NAT64 - first) | st.just(MAX_NAT64 - first))


@given(channels, nat64, allocations(), st.booleans())
def test_states(channel: ChannelId, version: int, allocation: tuple[int, int], finalized: bool) -> None:
    state = State(channel, version, allocation, finalized)
    value: dict[str, rust_candid.Value] = {
        "channel": channel, "version": version, "allocation": list(allocation), "finalized": finalized,
    }  # fmt: skip
    assert encoding.encode_state(state) == rust_candid.encode(rust_candid.STATE, value)


@given(
    st.binary(min_size=64, max_size=64),
    st.lists(keys, min_size=2, max_size=2, unique=True),
    st.integers(MIN_CHALLENGE_NS, MAX_CHALLENGE_NS),
)
def test_params(nonce: bytes, participants: list[ParticipantKey], duration: int) -> None:
    params = Params(nonce, (participants[0], participants[1]), Nanos(duration))
    value: dict[str, rust_candid.Value] = {
        "nonce": nonce, "participants": list(participants), "challenge_duration": duration,
    }  # fmt: skip
    assert encoding.encode_params(params) == rust_candid.encode(rust_candid.PARAMS, value)


@given(fundings)
def test_fundings(funding: Funding) -> None:
    value: dict[str, rust_candid.Value] = {"channel": funding.channel, "participant": funding.participant}
    assert encoding.encode_funding(funding) == rust_candid.encode(rust_candid.FUNDING, value)


@given(fundings, st.binary(max_size=29))
def test_withdrawal_requests(funding: Funding, receiver: bytes) -> None:
    value: dict[str, rust_candid.Value] = {
        "funding": {"channel": funding.channel, "participant": funding.participant}, "receiver": receiver,
    }  # fmt: skip
    request = WithdrawalRequest(funding, receiver)
    assert encoding.encode_withdrawal_request(request) == rust_candid.encode(rust_candid.WITHDRAWAL, value)


@given(st.integers(0, 2**70))
def test_uleb128_is_the_shortest(number: int) -> None:
    encoded = encoding.uleb128(number)
    assert encoded == rust_candid.leb(number)
    assert len(encoded) == max(1, -(-number.bit_length() // 7))
