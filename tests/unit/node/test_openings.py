"""Openings: what the policy refuses, what is said again, what survives a restart, and what a hostile peer may try."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path

import msgspec
import pytest

from perund.config import Config, Ic, Policy
from perund.keys import Keys
from perund.node.driver import PeerSession
from perund.node.openings import Openings, Refusal
from perund.node.places import Places
from perund.recovery.backup import BackupFile, read_backup
from perund.store.errors import StorageFailed
from perund.store.jobs import insert_channel
from perund.store.reading import open_reader
from perund.store.store import Store
from perund.store.writer import Statement
from protocol.effects import Record
from protocol.messages import (
    ChannelAccept,
    ChannelProposal,
    ChannelReject,
    ErrorMessage,
    Message,
    OpeningMessage,
    StateSignature,
)
from protocol.opening import MAX_FUNDING_DEADLINE_NS, Accepted, Dead, Opened, Signing
from protocol.signing import ChannelKey, verify_signed_state
from protocol.types import ChannelId, Nanos, ParticipantKey

NETWORK = b"\x11" * 32
ALICE, BOB, MALLORY = b"\x02" + b"\xaa" * 32, b"\x03" + b"\xbb" * 32, b"\x02" + b"\xee" * 32
HOUR_NS = 3600 * 10**9
START = Nanos(10**18)
ICP = 10**8
POLICY = Policy(
    min_total_e8s=ICP,
    max_total_e8s=100 * ICP,
    contribute_max_e8s=10 * ICP,
    min_challenge_s=60,
    max_challenge_s=86_400,
    max_channels=5,
    max_channels_per_peer=3,
)


@functools.cache
def keys_of(name: bytes) -> Keys:
    """Deriving keys from a phrase takes its time."""
    return Keys(name[1:33])


class Session:
    """What one peer hears. Before anything is said, the disk is asked whether it may be."""

    def __init__(self, house: House) -> None:
        self.heard: list[Message] = []
        self._house = house

    def send(self, message: Message) -> None:
        self._house.may_say(message)
        self.heard.append(message)

    def take(self) -> list[Message]:
        heard, self.heard = self.heard, []
        return heard


class House:
    """Openings on a store of their own. It takes channels over as the node does."""

    def __init__(self, directory: Path, name: bytes, policy: Policy = POLICY) -> None:
        directory.mkdir(exist_ok=True)
        self.directory, self.name = directory, name
        self.config = Config(
            network="local", ic=Ic(perun_canister="bkyz2-fmaaa-aaaaa-qaaaq-cai", root_key="00" * 133), policy=policy
        )
        self.keys = keys_of(name)
        self.now = START
        self.local = 0.0
        self.known: set[bytes] = set()
        self.spendable: int | None = 1_000 * ICP
        self.reason: str | None = None
        self.others = 0
        self.refusals: dict[bytes, Refusal] = {}
        self.resumed: list[bytes] = []
        self.failures: list[StorageFailed] = []
        self.start()

    def start(self) -> None:
        path = self.directory / "perund.db"
        self.store = Store(path, NETWORK, self.failures.append)
        self.disk = open_reader(path)
        self.backup = BackupFile(self.directory, self.keys, NETWORK, self.config, self.store.read)
        self.places = Places(self.config.policy, random.Random(1))
        self.openings = Openings(self.config, self.keys, self.store, self, lambda: self.reason, self.places)

    def restart(self) -> None:
        self.store.close()
        self.start()

    def may_say(self, message: Message) -> None:
        """Rule 2."""
        match message:
            case ChannelProposal() | ChannelAccept():
                assert self.disk.opening(message.proposal_id) is not None
            case StateSignature():
                phase = self.disk.opening(message.proposal_id)
                number = self.disk.channel_of_proposal(message.proposal_id)
                stored = phase.signature if isinstance(phase, Signing) else None
                if number is not None:
                    stored = self.disk.our_signature_0(number)
                assert message.signature == stored
                # The backup is durable before our signature on a state 0 leaves (DESIGN, section 11).
                saved = read_backup(self.backup.path, self.keys)
                assert saved.half_open or message.proposal_id in [c.proposal_id for c in saved.channels]
            case _:
                pass

    # --- openings.Surroundings ------------------------------------------------------------------------------

    def chain_ns(self) -> Nanos:
        return self.now

    def local_s(self) -> float:
        return self.local

    def is_known(self, peer: bytes) -> bool:
        return peer in self.known

    def channels_with(self, peer: bytes | None) -> int:
        rows = list(self.store.read.live_channels())
        return self.others + len(rows if peer is None else [r for r in rows if r.terms.peer == peer])

    def spendable_e8s(self) -> int | None:
        return self.spendable

    def open_channel(
        self, opened: Opened, records: tuple[Record | Statement, ...], session: PeerSession | None
    ) -> None:
        number = self.store.read.highest("channel") + 1
        self.store.name(opened.terms.channel, number)

        def durable() -> None:
            assert self.save_backup()
            if session is not None and opened.reply is not None:
                session.send(opened.reply)

        self.store.commit((*records, *insert_channel(opened, number, NETWORK, self.now, 1)), durable)

    def signed_again(self, proposal_id: bytes, session: PeerSession) -> None:
        self.resumed.append(proposal_id)

    def save_backup(self) -> bool:
        self.backup.write(1)
        return True

    def refused(self, proposal_id: bytes, refusal: Refusal) -> None:
        self.refusals[proposal_id] = refusal


@dataclass
class Scene:
    alice: House
    bob: House

    def __post_init__(self) -> None:
        self.connect()

    def connect(self) -> None:
        """A new session; both say again what may be lost."""
        self.to_bob, self.to_alice = Session(self.alice), Session(self.bob)
        self.alice.openings.session_began(BOB, self.to_bob)
        self.bob.openings.session_began(ALICE, self.to_alice)

    def propose(self, allocation: tuple[int, int] = (5 * ICP, 0), proposal_id: bytes = b"\x07" * 32) -> bytes:
        self.alice.openings.propose(
            BOB, self.to_bob, allocation, Nanos(600 * 10**9), Nanos(START + HOUR_NS), (), proposal_id
        )
        return proposal_id

    async def written(self) -> None:
        for house in (self.alice, self.bob):
            await house.store.write(())

    async def deliver(self, most: int = 100) -> None:
        """Carry up to so many messages, until there are none."""
        for _ in range(most):
            await self.written()
            if self.to_bob.heard:
                message = self.to_bob.heard.pop(0)
                assert isinstance(message, OpeningMessage), message
                self.bob.openings.received(ALICE, self.to_alice, message)
            elif self.to_alice.heard:
                message = self.to_alice.heard.pop(0)
                assert isinstance(message, OpeningMessage), message
                self.alice.openings.received(BOB, self.to_bob, message)
            else:
                return
        await self.written()

    def channels(self) -> list[int]:
        return [len(list(house.store.read.live_channels())) for house in (self.alice, self.bob)]


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    made = Scene(House(tmp_path / "alice", ALICE), House(tmp_path / "bob", BOB))
    yield made
    for house in (made.alice, made.bob):
        house.store.close()
        assert house.failures == []


async def test_a_proposal_becomes_the_same_channel_on_both_sides(scene: Scene) -> None:
    scene.propose((5 * ICP, 2 * ICP))
    assert scene.to_bob.heard == []  # not before it is durable
    await scene.deliver()
    (alice,), (bob,) = (list(h.store.read.live_channels()) for h in (scene.alice, scene.bob))
    assert alice.terms.params == bob.terms.params
    assert alice.memory.newest == bob.memory.newest
    assert alice.memory.newest.state.allocation == (5 * ICP, 2 * ICP)
    assert verify_signed_state(alice.terms.params, alice.memory.newest)
    assert (alice.terms.our_index, bob.terms.our_index) == (0, 1)
    assert (alice.terms.peer, bob.terms.peer) == (BOB, ALICE)
    for house, row in ((scene.alice, alice), (scene.bob, bob)):
        key = ChannelKey(house.keys.participant_seed(row.terms.our_share))
        assert key.public == row.terms.params.participants[row.terms.our_index]
    assert scene.alice.openings.ours_waiting_e8s() == scene.bob.openings.ours_waiting_e8s() == 0


@pytest.mark.parametrize("lost_after", range(5))
@pytest.mark.parametrize("crashed", ["nobody", "alice", "bob"])
async def test_lost_or_restarted_at_any_message_it_goes_on(scene: Scene, lost_after: int, crashed: str) -> None:
    scene.propose()
    await scene.deliver(lost_after)
    if crashed == "alice":
        scene.alice.restart()
    if crashed == "bob":
        scene.bob.restart()
    scene.connect()  # everything on its way is lost
    await scene.deliver()
    assert scene.channels() == [1, 1]


async def test_with_whom_openings_are_under_way_is_known_after_a_restart(scene: Scene) -> None:
    scene.propose()
    await scene.deliver(1)
    for house in (scene.alice, scene.bob):
        house.restart()
    assert scene.alice.openings.peers() == {BOB}
    assert scene.bob.openings.peers() == {ALICE}
    scene.connect()
    await scene.deliver()
    assert scene.alice.openings.peers() == scene.bob.openings.peers() == set()


async def test_our_share_in_openings_is_promised_money(scene: Scene) -> None:
    scene.propose((5 * ICP, 2 * ICP))
    assert scene.alice.openings.ours_waiting_e8s() == 5 * ICP
    await scene.deliver(1)
    assert scene.bob.openings.ours_waiting_e8s() == 2 * ICP


# --- the policy -------------------------------------------------------------------------------------------

CHANNEL = ChannelId(b"\x01" * 64)
KEY = ParticipantKey(ChannelKey(b"\x05" * 32).public)
GOOD = ChannelProposal(b"\x07" * 32, b"\x08" * 32, KEY, (5 * ICP, 0), Nanos(600 * 10**9), Nanos(START + HOUR_NS))


def heard(
    house: House, proposal: OpeningMessage, peer: bytes = ALICE, session: Session | None = None, origin: str = ""
) -> Session:
    session = session or Session(house)
    house.openings.received(peer, session, proposal, origin)
    return session


async def answer(house: House, proposal: ChannelProposal, peer: bytes = ALICE, origin: str = "") -> str:
    """Return the code with which a proposal is refused, or `accepted`."""
    session = heard(house, proposal, peer, origin=origin)
    await house.store.write(())
    (message,) = session.take()
    if isinstance(message, ChannelReject):
        assert message.proposal_id == proposal.proposal_id
        assert message.text
        return message.code
    assert isinstance(message, ChannelAccept)
    return "accepted"


@pytest.mark.parametrize(
    ("proposal", "expected"),
    [
        (GOOD, "accepted"),
        (changed(GOOD, allocation=(ICP, 0)), "accepted"),
        (changed(GOOD, allocation=(ICP - 1, 0)), "bad_amount"),
        (changed(GOOD, allocation=(100 * ICP, 0)), "accepted"),
        (changed(GOOD, allocation=(100 * ICP + 1, 0)), "bad_amount"),
        (changed(GOOD, allocation=(2**64 - 1, 2**64 - 1)), "bad_amount"),
        (changed(GOOD, allocation=(0, 10 * ICP)), "accepted"),
        (changed(GOOD, allocation=(0, 10 * ICP + 1)), "contribution_too_large"),
        (changed(GOOD, challenge_duration_ns=Nanos(60 * 10**9)), "accepted"),
        (changed(GOOD, challenge_duration_ns=Nanos(60 * 10**9 - 1)), "bad_challenge_duration"),
        (changed(GOOD, challenge_duration_ns=Nanos(86_400 * 10**9)), "accepted"),
        (changed(GOOD, challenge_duration_ns=Nanos(86_400 * 10**9 + 1)), "bad_challenge_duration"),
        (changed(GOOD, funding_deadline_ns=Nanos(START)), "bad_deadline"),
        (changed(GOOD, funding_deadline_ns=Nanos(START + MAX_FUNDING_DEADLINE_NS)), "accepted"),
        (changed(GOOD, funding_deadline_ns=Nanos(START + MAX_FUNDING_DEADLINE_NS + 1)), "bad_deadline"),
        (changed(GOOD, participant=ParticipantKey(b"\x00" * 32)), "bad_key"),
        (changed(GOOD, participant=ParticipantKey(b"\x01" + b"\x00" * 31)), "bad_key"),
    ],
)
async def test_the_policy_has_bounds(tmp_path: Path, proposal: ChannelProposal, expected: str) -> None:
    house = House(tmp_path / "bob", BOB)
    assert await answer(house, proposal) == expected
    stored = house.store.read.opening(proposal.proposal_id)
    assert isinstance(stored, Accepted) is (expected == "accepted")  # what is refused leaves nothing
    house.store.close()


def _lacks_money(house: House) -> None:
    house.spendable = 2 * ICP - 1


def _knows_no_balance(house: House) -> None:
    house.spendable = None


def _distrusts(house: House) -> None:
    house.reason = "the canister's module hash is not known"


def _is_full(house: House) -> None:
    house.others = 5


@pytest.mark.parametrize(
    ("policy", "prepare", "expected"),
    [
        (msgspec.structs.replace(POLICY, accept=False), None, "not_accepting"),
        (msgspec.structs.replace(POLICY, peers_allowed=(BOB.hex(),)), None, "peer_not_allowed"),
        (msgspec.structs.replace(POLICY, peers_allowed=(ALICE.hex(),)), None, "accepted"),
        (POLICY, _lacks_money, "contribution_not_available"),
        (POLICY, _knows_no_balance, "contribution_not_available"),
        (POLICY, _distrusts, "not_now"),
        (POLICY, _is_full, "too_many_channels"),
    ],
)
async def test_what_the_node_is_decides_too(
    tmp_path: Path, policy: Policy, prepare: Callable[[House], None] | None, expected: str
) -> None:
    house = House(tmp_path / "bob", BOB, policy)
    if prepare is not None:
        prepare(house)
    assert await answer(house, changed(GOOD, allocation=(5 * ICP, 2 * ICP))) == expected
    house.store.close()


def numbered(number: int) -> ChannelProposal:
    return changed(GOOD, proposal_id=number.to_bytes(32, "big"))


async def test_openings_under_way_are_bounded_per_peer_and_by_address_and_in_all(tmp_path: Path) -> None:
    policy = msgspec.structs.replace(
        POLICY, max_channels_per_peer=50, max_unfunded=8, max_unfunded_per_peer=2, max_unfunded_per_address=4
    )
    bob = House(tmp_path / "bob", BOB, policy)
    numbers = iter(range(1000))

    async def proposes(peer: bytes, origin: str = "one") -> str:
        return await answer(bob, numbered(next(numbers)), peer, origin)

    assert [await proposes(ALICE) for _ in range(3)] == ["accepted", "accepted", "too_many_openings"]
    assert await answer(bob, numbered(0), ALICE, "one") == "accepted"  # the same again is none more
    assert [await proposes(MALLORY) for _ in range(2)] == ["accepted"] * 2
    # One address is full: a newcomer there takes the place of a key that has more, and nothing of other addresses.
    assert await proposes(peer_of(1)) == "accepted"
    assert await proposes(peer_of(2)) == "accepted"
    assert [await proposes(peer_of(3), "two"), await proposes(peer_of(4), "three")] == ["accepted"] * 2
    for address in range(6):  # anybody from anywhere else gets in, whatever the first address does
        assert await proposes(peer_of(100 + address), f"address {address}") == "accepted"
    assert await proposes(peer_of(5)) == "too_many_openings"
    bob.known.add(MALLORY)
    assert await proposes(MALLORY) == "accepted"  # who has money takes no place of those
    bob.store.close()


async def test_a_place_is_given_up_long_before_the_promise(tmp_path: Path) -> None:
    policy = msgspec.structs.replace(
        POLICY, max_channels_per_peer=50, max_unfunded=2, max_unfunded_per_address=2, unfunded_place_s=600
    )
    bob = House(tmp_path / "bob", BOB, policy)
    for number in range(2):
        assert await answer(bob, numbered(number), peer_of(number)) == "accepted"
    bob.places.signed(numbered(1).proposal_id, CHANNEL, bob.local)
    assert await answer(bob, numbered(2), peer_of(2)) == "accepted"  # chance decides, and not again at once
    assert await answer(bob, numbered(3), peer_of(3)) == "too_many_openings"
    bob.local += 31  # nobody signed in time
    assert await answer(bob, numbered(4), peer_of(4)) == "accepted"
    bob.local += 600
    assert bob.places.overdue(bob.local) == []
    assert not bob.places.has_place(CHANNEL)
    assert len(bob.places) == 4, "what was promised is kept"
    assert await answer(bob, numbered(0), peer_of(0)) == "accepted"
    bob.store.close()


async def test_promises_that_nobody_keeps_are_bounded(tmp_path: Path) -> None:
    policy = msgspec.structs.replace(POLICY, max_unfunded=3, max_unfunded_per_address=3, max_channels_per_peer=50)
    bob = House(tmp_path / "bob", BOB, policy)
    for number in range(100):
        bob.local += 31
        assert await answer(bob, numbered(number), peer_of(number)) == "accepted"
        for proposal_id, _ in bob.places.overdue(bob.local):
            bob.openings.give_up(proposal_id)
    await bob.store.write(())
    assert len(bob.places) <= 31
    assert len(bob.openings._live) <= 31
    assert len(bob.disk.live_openings()) <= 31
    assert await answer(bob, numbered(99), peer_of(99)) == "accepted"  # the newest are still there
    bob.store.close()


def peer_of(number: int) -> bytes:
    return b"\x02" + number.to_bytes(32, "big")


# --- the same again, and something else -------------------------------------------------------------------


async def test_the_same_proposal_gets_the_same_answer_also_after_a_restart(scene: Scene) -> None:
    first = heard(scene.bob, GOOD)
    await scene.bob.store.write(())
    scene.bob.restart()
    second = heard(scene.bob, GOOD)
    await scene.bob.store.write(())
    assert first.heard == second.heard
    assert len(first.heard) == 1


async def test_another_proposal_under_the_same_id_is_refused(scene: Scene) -> None:
    assert await answer(scene.bob, GOOD) == "accepted"
    assert await answer(scene.bob, changed(GOOD, allocation=(6 * ICP, 0))) == "changed_proposal"
    assert await answer(scene.bob, GOOD) == "accepted"


async def test_an_id_belongs_to_the_peer_that_used_it_first(scene: Scene) -> None:
    assert await answer(scene.bob, GOOD) == "accepted"
    assert await answer(scene.bob, GOOD, MALLORY) == "unknown_proposal"
    session = heard(scene.bob, StateSignature(GOOD.proposal_id, b"\x01" * 64), MALLORY)
    assert isinstance(session.heard[0], ErrorMessage)
    assert heard(scene.bob, ChannelReject(GOOD.proposal_id, "no", "no"), MALLORY).heard == []
    assert isinstance(scene.bob.store.read.opening(GOOD.proposal_id), Accepted)


async def test_the_id_of_a_channel_cannot_be_used_again_by_another_peer(scene: Scene) -> None:
    """A second channel of one proposal id would break a unique row, and rule 8 would end the node: two colluding
    peers could stop it at will.
    """
    proposal_id = scene.propose()
    await scene.deliver()
    assert scene.channels() == [1, 1]
    assert await answer(scene.bob, changed(GOOD, proposal_id=proposal_id), MALLORY) == "unknown_proposal"
    scene.bob.restart()
    assert await answer(scene.bob, changed(GOOD, proposal_id=proposal_id), MALLORY) == "unknown_proposal"
    assert scene.bob.failures == []


async def test_a_signature_sent_twice_in_one_breath_opens_one_channel(scene: Scene) -> None:
    """The second arrives before the first is on the disk, where the opening still waits for it."""
    scene.propose()
    await scene.deliver(2)
    (signature,) = scene.to_bob.take()
    assert isinstance(signature, StateSignature)
    for _ in range(3):
        scene.bob.openings.received(ALICE, scene.to_alice, signature)
    await scene.written()
    assert scene.channels()[1] == 1
    assert scene.bob.failures == []
    assert len(set(scene.to_alice.heard)) == 1  # the same answer to each
    assert len(scene.to_alice.heard) == 3
    for message in scene.to_alice.take() * 2:
        assert isinstance(message, StateSignature)
        scene.alice.openings.received(BOB, scene.to_bob, message)
    await scene.written()
    assert scene.channels() == [1, 1]
    assert scene.alice.failures == []


async def test_a_late_signature_is_answered_again_after_the_channel_is_there(scene: Scene) -> None:
    proposal_id = scene.propose()
    await scene.deliver()
    number = scene.alice.store.read.channel_of_proposal(proposal_id)
    assert number is not None
    again = StateSignature(proposal_id, scene.alice.store.read.our_signature_0(number))
    session = heard(scene.bob, again)
    await scene.bob.store.write(())
    channel = next(scene.bob.store.read.live_channels())
    assert session.heard == [StateSignature(proposal_id, channel.memory.newest.signatures[1])]
    assert scene.bob.resumed == [proposal_id]
    session = heard(scene.bob, changed(GOOD, proposal_id=proposal_id))  # the channel speaks for itself
    await scene.bob.store.write(())
    assert session.heard == []


async def test_a_wrong_signature_opens_nothing_and_the_right_one_still_does(scene: Scene) -> None:
    scene.propose()
    await scene.deliver(2)
    (signature,) = scene.to_bob.take()
    assert isinstance(signature, StateSignature)
    wrong = heard(scene.bob, StateSignature(signature.proposal_id, bytes(64)), session=scene.to_alice)
    assert [m.code for m in wrong.take() if isinstance(m, ErrorMessage)] == ["bad_signature"]
    assert scene.channels()[1] == 0
    scene.bob.openings.received(ALICE, scene.to_alice, signature)
    await scene.deliver()
    assert scene.channels() == [1, 1]


async def test_messages_about_nothing_we_know(scene: Scene) -> None:
    for message in (StateSignature(b"\x01" * 32, bytes(64)), ChannelAccept(b"\x01" * 32, b"\x02" * 32, KEY)):
        session = heard(scene.bob, message)
        assert [m.code for m in session.heard if isinstance(m, ErrorMessage)] == ["unknown_proposal"]
    assert heard(scene.bob, ChannelReject(b"\x01" * 32, "no", "no")).heard == []


# --- ends -------------------------------------------------------------------------------------------------


async def test_a_refusal_of_the_peer_ends_our_opening_for_good(scene: Scene) -> None:
    scene.bob.reason = "not now"
    proposal_id = scene.propose()
    await scene.deliver()
    assert scene.alice.refusals == {proposal_id: Refusal("not_now", "not now")}
    assert isinstance(scene.alice.store.read.opening(proposal_id), Dead)
    assert scene.alice.openings.ours_waiting_e8s() == 0
    scene.alice.openings.received(BOB, scene.to_bob, ChannelAccept(proposal_id, b"\x02" * 32, KEY))
    await scene.written()
    assert scene.channels() == [0, 0]
    assert [e.kind for e in scene.alice.store.read.events(0, 9)] == ["opening.ended"]


async def test_proposals_that_their_peer_takes_back_leave_nothing_behind(scene: Scene) -> None:
    """Nor those that expire: a stranger could fill the disk with them."""
    for number in range(20):
        heard(scene.bob, numbered(number))
        heard(scene.bob, ChannelReject(numbered(number).proposal_id, "no", "changed my mind"))
    await scene.written()
    heard(scene.bob, numbered(20))
    scene.bob.now = Nanos(START + HOUR_NS)
    scene.bob.openings.expire()
    await scene.written()
    assert scene.bob.store.read._rows("SELECT count(*) FROM opening") == [(0,)]
    assert scene.bob.store.read.events(0, 99) == []
    assert scene.bob.openings._live == {}


async def test_a_refusal_and_an_acceptance_in_one_breath_are_a_refusal(scene: Scene) -> None:
    proposal_id = scene.propose()
    await scene.written()
    scene.to_bob.take()
    for message in (
        ChannelReject(proposal_id, "no", "no"),
        ChannelAccept(proposal_id, b"\x02" * 32, KEY),
        ChannelReject(proposal_id, "no", "no"),
    ):
        scene.alice.openings.received(BOB, scene.to_bob, message)
    await scene.written()
    assert scene.to_bob.heard == []
    assert isinstance(scene.alice.store.read.opening(proposal_id), Dead)
    assert len(scene.alice.store.read.events(0, 9)) == 1


@pytest.mark.parametrize("delivered", [0, 1, 2, 3])
async def test_without_both_signatures_at_the_deadline_it_is_dead_even_if_one_comes_later(
    scene: Scene, delivered: int
) -> None:
    proposal_id = scene.propose()
    await scene.deliver(delivered)
    for house in (scene.alice, scene.bob):
        house.now = Nanos(START + HOUR_NS)
        house.openings.expire()
        house.openings.expire()
    await scene.written()
    assert scene.alice.refusals[proposal_id].code == "expired"
    for message in scene.to_bob.take():
        if isinstance(message, OpeningMessage):
            scene.bob.openings.received(ALICE, scene.to_alice, message)
    for message in scene.to_alice.take():
        if isinstance(message, OpeningMessage):
            scene.alice.openings.received(BOB, scene.to_bob, message)
    await scene.written()
    assert scene.channels()[0] == 0
    assert scene.channels()[1] == (1 if delivered == 3 else 0)  # the acceptor had both in time; it will pay nothing
    assert scene.alice.openings.ours_waiting_e8s() == 0
    scene.alice.restart()
    scene.bob.restart()
    scene.connect()
    await asyncio.sleep(0)
    await scene.written()
    assert (scene.to_bob.heard, scene.to_alice.heard) == ([], [])  # nobody says anything about it again
