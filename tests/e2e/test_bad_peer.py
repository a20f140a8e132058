"""What a peer may do wrong: it is told, the node lives, its other channels go on, and no last good state is lost."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio

from perund.control.errors import RpcError
from perund.demo.processes import NodeProcess
from protocol.messages import (
    Ack,
    ChannelAccept,
    ChannelProposal,
    ChannelReady,
    ChannelReject,
    CloseRequest,
    Confirm,
    Decline,
    ErrorMessage,
    Offer,
    Resume,
    StateSignature,
    Update,
)
from protocol.payments import Batch, Payment
from protocol.signing import ChannelKey
from protocol.types import ChannelId, Nanos, ParticipantKey
from tests.e2e.peer import Line, Peer
from tests.e2e.town import ICP, Town, within

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("bad peer")]
NS = 1_000_000_000


@dataclass
class Street:
    """Bob's node, which everybody here talks to; alice is an honest peer of his."""

    town: Town
    alice: NodeProcess
    bob: NodeProcess
    honest: str

    async def peer(self) -> Peer:
        peer = Peer(self.town.devnet)
        await peer.dial(self.bob)
        return peer

    async def all_is_well(self) -> None:
        """The daemon lives, and the honest channel pays both ways."""
        assert self.bob.returncode is None
        await self.town.pay(self.alice, self.honest, 2_000)
        await self.town.pay(self.bob, self.honest, 1_000)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def street(tmp_path_factory: pytest.TempPathFactory, cabinet: Path) -> AsyncIterator[Street]:
    directory: Path = tmp_path_factory.mktemp("street")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERUND_POLICY_MIN_CHALLENGE_S", "20")
        patch.setenv("PERUND_POLICY_MAX_CHALLENGE_S", "7200")
        patch.setenv("PERUND_POLICY_MAX_TOTAL_E8S", "1000 ICP")
        patch.setenv("PERUND_POLICY_MIN_TOTAL_E8S", "1 ICP")
        town = await Town(directory, cabinet).found()
        try:
            alice, bob = await town.pair(contributes=10)
            yield Street(town, alice, bob, await town.open(alice, bob, 100, challenge_s=3600))
        finally:
            await town.leave()


@pytest_asyncio.fixture(loop_scope="module")
async def peer(street: Street) -> AsyncIterator[Peer]:
    peer = await street.peer()
    await street.town.mint(peer.account, 200 * ICP)
    yield peer
    await peer.close()
    await street.all_is_well()


@pytest_asyncio.fixture(loop_scope="module")
async def line(peer: Peer) -> Line:
    line = await peer.open()
    await line.pay(line.payment(1_000))
    return line


# --- bytes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "junk",
    [b"GET / HTTP/1.1\r\nHost: the-address-of-this-very-node\r\n\r\n", bytes(50), b"\xff" * 100_000],
    ids=["http", "zeros", "ff"],
)
async def test_bytes_that_are_no_handshake(street: Street, junk: bytes) -> None:
    assert street.bob.info.listen is not None
    host, _, port = street.bob.info.listen.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(junk)

    async def hung_up() -> bytes:
        try:
            return await reader.read()
        except ConnectionError:
            return b""

    assert await within(hung_up(), "the node hanging up", 15) == b"", "a failed handshake is not answered"
    writer.close()
    await street.all_is_well()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "bad_message"),
        (b"\x93\x16\x01", "bad_message"),
        (os.urandom(65_535), "bad_message"),
        (b"\x92\x0a\xc4\x01\x00", "bad_message"),
        (b"\xdd\xff\xff\xff\xff", "bad_message"),
        (b"\x92\x0e\xc7\x40\x01" + bytes(64), "bad_message"),
        (b"\x92\x0e\xa1x", "bad_message"),
        (b"\x91\xcd\x01\xf4", "unknown_message"),
    ],
    ids=["empty", "cut", "random", "short array", "huge array", "extension", "text for bytes", "unknown even type"],
)
async def test_messages_that_are_none(line: Line, street: Street, data: bytes, code: str) -> None:
    peer = line.peer
    session = peer.session

    session.link.send(data)

    assert (await peer.hear(ErrorMessage)).code == code
    await within(session.closed(), "the end of the session", 15)
    await peer.dial(street.bob)  # and after that the channel is what it was
    await line.resume()
    await line.pay(line.payment(1_000))


async def test_a_frame_that_was_tampered_with_ends_the_connection(peer: Peer) -> None:
    session = peer.session
    session.link._transport.write(os.urandom(34) * 20)  # type: ignore[union-attr]
    await within(session.closed(), "the end of the session", 15)


async def test_an_unknown_odd_type_is_ignored(line: Line) -> None:
    line.peer.session.link.send(b"\x92\xcd\x01\xf5\x01")
    await line.pay(line.payment(1_000))


async def test_a_second_hello(peer: Peer) -> None:
    session = peer.session
    session.send(peer.network._hello)
    assert (await peer.hear(ErrorMessage)).code == "bad_message"
    await within(session.closed(), "the end of the session", 15)


# --- updates ----------------------------------------------------------------------------------------------

Break = Callable[[Line, Update], Update]


def resigned(**changes: object) -> Break:
    return lambda line, update: line.signed(replace(update, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda line, u: line.signed(replace(u, allocation=(u.allocation[0] + 1, u.allocation[1]))),
         "wrong_allocation"),
        (lambda line, u: line.signed(replace(u, allocation=(u.allocation[0] + 1, u.allocation[1] - 1))),
         "wrong_allocation"),
        (resigned(version=3), "wrong_version"),
        (resigned(version=2**63 - 1), "wrong_version"),
        (resigned(from_0=Batch()), "empty_update"),
        (lambda line, u: line.signed(replace(u, from_0=Batch(), allocation=line.newest.state.allocation)),
         "empty_update"),
        (resigned(finalized=True), "final_with_payments"),
        (lambda line, u: replace(u, signature=bytes(64)), "bad_signature"),
        (lambda line, u: replace(u, signature=u.signature[:-1] + bytes([u.signature[-1] ^ 1])), "bad_signature"),
        (lambda line, u: line.signed(replace(u, from_0=Batch.of([Payment((1).to_bytes(16, "big"), 7)]))),
         "replayed_payment"),
        (lambda line, u: line.update(from_1=Batch.of([Payment(b"u" * 16, 500)])), "not_offered"),
        (lambda line, u: line.signed(replace(u, version=1)), "state_conflict"),
    ],
    ids=["makes money", "moves too little", "skips a version", "largest version",
         "allocation without payments", "empty", "final with payments", "no signature", "bit of the signature",
         "replayed id", "not offered", "another state of a version"],
)  # fmt: skip
async def test_updates_that_break_a_rule(street: Street, line: Line, spoil: Break, code: str) -> None:
    good = line.newest

    line.peer.say(spoil(line, line.update(line.payment(7))))

    error = await line.peer.hear(ErrorMessage)
    assert (error.code, error.channel) == (code, line.id)
    assert error.text
    # It updates no more, not even correctly; what both signed stands, and can be enforced.
    line.peer.say(line.update(line.payment(9)))
    channel = line.id.hex()
    view = await street.town.view(street.bob, channel)
    assert view.frozen is not None
    assert view.frozen.startswith(code)
    assert street.town.newest(street.bob, channel).state == good.state
    with pytest.raises(RpcError) as refused:
        await street.town.pay(street.bob, channel, 1)
    assert refused.value.name == "channel_frozen"
    health = await street.bob.control.call("node.health")
    assert channel in [problem.get("channel") for problem in health["problems"]]


async def test_the_same_update_again_gets_the_same_acknowledgement(line: Line) -> None:
    update = line.update(line.payment(7))
    line.peer.say(update, update, update)
    answers = [await line.peer.hear(Ack) for _ in range(3)]
    assert len({answer.signature for answer in answers}) == 1
    assert {answer.version for answer in answers} == {2}


@pytest.mark.parametrize(
    "message",
    [
        lambda c: Ack(c, 1, bytes(64)),
        lambda c: Offer(c, Batch.of([Payment(bytes(16), 5)])),
        CloseRequest,
    ],
    ids=["ack", "offer", "close request"],
)
async def test_messages_of_the_other_role(line: Line, message: Callable[[ChannelId], Ack]) -> None:
    line.peer.say(message(line.id))
    assert (await line.peer.hear(ErrorMessage)).code == "wrong_role"


async def test_a_confirmation_of_what_was_never_agreed(line: Line) -> None:
    line.peer.say(Confirm(line.id, 99))
    assert (await line.peer.hear(ErrorMessage)).code == "wrong_version"


async def test_a_decline_of_unknown_payments_changes_nothing(line: Line) -> None:
    line.peer.say(Decline(line.id, os.urandom(160), "because"))
    await line.pay(line.payment(7))


# --- channels of others, and resume -----------------------------------------------------------------------


async def test_messages_for_the_channel_of_somebody_else(street: Street, peer: Peer) -> None:
    honest = ChannelId(bytes.fromhex(street.honest))
    before = street.town.newest(street.bob, street.honest)
    signed = before.state
    for message in (
        Update(honest, signed.version + 1, (1, signed.total - 1), False, Batch(), Batch(), bytes(64)),
        Resume(honest, 2, signed.version + 9, bytes(32), 0, b"", recovering=False),  # type: ignore[arg-type]
        ChannelReady(honest),
        Confirm(honest, signed.version),
    ):
        peer.say(message)
        error = await peer.hear(ErrorMessage)
        assert (error.code, error.channel) == ("unknown_channel", honest)
    assert street.town.newest(street.bob, street.honest) == before
    assert (await street.town.view(street.bob, street.honest)).frozen is None


async def test_a_message_before_resume(street: Street, line: Line) -> None:
    await line.peer.network.close()
    other = Peer(street.town.devnet)
    other.network = line.peer.network.__class__(line.peer.network._key, line.peer.network._hello, other)
    await other.dial(street.bob)
    other.say(line.update(line.payment(7)))
    assert (await other.hear(ErrorMessage)).code == "not_resumed"
    await other.close()


@pytest.mark.parametrize(
    ("lie", "code"),
    [
        (lambda r: replace(r, state_hash=bytes(32)), "state_conflict"),
        (lambda r: replace(r, version=r.version + 5), "unproven_claim"),
        (lambda r: replace(r, pending_version=r.version, pending_hash=bytes(32)), "state_conflict"),
        (lambda r: replace(r, pending_version=r.version + 7, pending_hash=bytes(32)), "unproven_claim"),
    ],
    ids=["another hash", "a version ahead", "another pending state", "pending far ahead"],
)
async def test_a_resume_that_lies(street: Street, line: Line, lie: Callable[[Resume], Resume], code: str) -> None:
    good = line.newest
    line.peer.session.close("to connect again")
    await line.peer.session.closed()
    await line.peer.dial(street.bob)
    await line.peer.hear(Resume)
    line.peer.say(lie(line.resume_message()))
    assert (await line.peer.hear(ErrorMessage)).code == code
    assert street.town.newest(street.bob, line.id.hex()).state == good.state


# --- proposals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda p: replace(p, allocation=(ICP - 1, 0)), "bad_amount"),
        (lambda p: replace(p, allocation=(1_000 * ICP + 1, 0)), "bad_amount"),
        (lambda p: replace(p, allocation=(0, 0)), "bad_amount"),
        (lambda p: replace(p, allocation=(2**64 - 1, 0)), "bad_amount"),
        (lambda p: replace(p, allocation=(10 * ICP, 10 * ICP + 1)), "contribution_too_large"),
        (lambda p: replace(p, challenge_duration_ns=Nanos(20 * NS - 1)), "bad_challenge_duration"),
        (lambda p: replace(p, challenge_duration_ns=Nanos(7200 * NS + 1)), "bad_challenge_duration"),
        (lambda p: replace(p, challenge_duration_ns=Nanos(0)), "bad_challenge_duration"),
        (lambda p: replace(p, challenge_duration_ns=Nanos(2**63 - 1)), "bad_challenge_duration"),
        (lambda p: replace(p, funding_deadline_ns=Nanos(0)), "bad_deadline"),
        (lambda p: replace(p, funding_deadline_ns=Nanos(2**63 - 1)), "bad_deadline"),
        (lambda p: replace(p, participant=ParticipantKey(bytes(32))), "bad_key"),
        (lambda p: replace(p, participant=ParticipantKey(b"\xff" * 32)), "bad_key"),
    ],
    ids=["too little", "too much", "nothing", "most", "asks too much of us", "too short", "too long", "zero duration",
         "longest duration", "deadline passed", "deadline too far", "small order key", "no key"],
)  # fmt: skip
async def test_proposals_that_break_a_bound(
    peer: Peer, spoil: Callable[[ChannelProposal], ChannelProposal], code: str
) -> None:
    proposal = spoil(await peer.proposal(ChannelKey(os.urandom(32)), 5 * ICP))
    peer.say(proposal)
    rejected = await peer.hear(ChannelReject)
    assert (rejected.proposal_id, rejected.code) == (proposal.proposal_id, code)
    assert rejected.text


async def test_more_proposals_than_a_peer_may_have(peer: Peer) -> None:
    proposals = [await peer.proposal(ChannelKey(os.urandom(32)), 5 * ICP) for _ in range(20)]
    peer.say(*proposals)
    rejected = [(await peer.hear(ChannelReject, "too_many_openings")).proposal_id for _ in proposals[2:]]
    assert rejected == [p.proposal_id for p in proposals[2:]]


async def test_the_same_proposal_twice_and_another_under_its_id(peer: Peer) -> None:
    proposal = await peer.proposal(ChannelKey(os.urandom(32)), 5 * ICP)
    peer.say(proposal, proposal)
    assert await peer.hear(ChannelAccept) == await peer.hear(ChannelAccept)
    peer.say(replace(proposal, allocation=(6 * ICP, 0)))
    assert (await peer.hear(ChannelReject)).code == "changed_proposal"


async def test_a_wrong_signature_on_state_0(peer: Peer) -> None:
    proposal = await peer.proposal(ChannelKey(os.urandom(32)), 5 * ICP)
    peer.say(proposal)
    await peer.hear(ChannelAccept)
    peer.say(StateSignature(proposal.proposal_id, bytes(64)))
    assert (await peer.hear(ErrorMessage)).code == "bad_signature"
    peer.say(StateSignature(os.urandom(32), bytes(64)))
    assert (await peer.hear(ErrorMessage)).code == "unknown_proposal"


async def test_a_proposer_that_never_pays_costs_the_acceptor_nothing(street: Street, peer: Peer) -> None:
    before = await street.town.balance(street.bob)
    line = await peer.agree(5 * ICP)
    view = await street.town.view(street.bob, line.id.hex())
    assert (view.phase, view.costs) == ("funding", [])
    # A state above 0 is worth nothing yet, so it gets no signature.
    await line.resume()
    peer.say(line.update(line.payment(7)))
    await street.all_is_well()
    assert not [m for m in peer.inbox if isinstance(m, Ack)]
    assert await street.town.balance(street.bob) == before
