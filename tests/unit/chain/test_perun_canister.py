from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import cbor2
import pytest

from chain import candid
from chain.agent import Agent
from chain.candid import BLOB, BOOL, NAT, NAT32, NAT64, NULL, PRINCIPAL, CandidValue, opt, record, variant, vec
from chain.errors import (
    CallRejected,
    InterfaceMismatch,
    InterfaceUnknown,
    LyingReplica,
    UnencodableArgument,
    UnexpectedReply,
)
from chain.interface import DISPUTES_SINCE, PERUN_INTERFACE, differences, methods_of
from chain.perun import (
    CanisterCode,
    CanisterError,
    Concluded,
    Disputed,
    DisputeEntry,
    DisputePage,
    Funded,
    PerunCanister,
)
from chain.request import SignedCall
from protocol.signing import ChannelKey
from protocol.types import (
    Funding,
    Nanos,
    Params,
    ParticipantKey,
    RegisteredState,
    SignedState,
    State,
    WithdrawalRequest,
)
from tests.unit.chain.replica import CANISTER, FakeClock, TestReplica, answer

ALICE, BOB = ChannelKey(b"\x01" * 32), ChannelKey(b"\x02" * 32)
PARAMS = Params(bytes(64), (ALICE.public, BOB.public), Nanos(3_600_000_000_000))
STATE = State(PARAMS.channel_id, 5, (700, 300), finalized=False)
SIGNED = SignedState(STATE, (ALICE.sign_state(STATE), BOB.sign_state(STATE)))
FUNDING = Funding(PARAMS.channel_id, ALICE.public)

C_STATE = record(channel=BLOB, version=NAT64, allocation=vec(NAT), finalized=BOOL)
C_REGISTERED = record(state=C_STATE, timeout=NAT64)
C_ERROR = variant(
    AlreadyConcluded=NULL, OutdatedState=NULL, ReceiverError=variant(DuplicateTransaction=NULL, Recipient=NULL)
)
C_EVENT = variant(Funded=record(who=BLOB, total=NAT), Disputed=C_REGISTERED, Concluded=NULL)
C_PAGE = record(entries=vec(record(index=NAT64, channel=BLOB, state=C_REGISTERED)), head=NAT64)


def registered(**changes: Any) -> dict[str, CandidValue]:
    state = {"channel": PARAMS.channel_id, "version": 5, "allocation": [700, 300], "finalized": False, **changes}
    return {"state": state, "timeout": 1_700_000_000_000_000_001}


@pytest.fixture
def perun(agent: Agent) -> PerunCanister:
    return PerunCanister(agent, CANISTER)


def last_argument(replica: TestReplica, method: str, *types: candid.CandidType) -> list[CandidValue]:
    assert replica.calls[-1]["method_name"] == method
    return candid.decode(types, replica.calls[-1]["arg"])


async def test_a_look_at_a_registered_state(perun: PerunCanister, replica: TestReplica, clock: FakeClock) -> None:
    replica.reply = candid.encode([opt(C_REGISTERED)], [registered()])
    look = await perun.query_state(PARAMS.channel_id)
    assert look.value == RegisteredState(STATE, Nanos(1_700_000_000_000_000_001))
    assert (look.chain_time_ns, look.signed_at_mono_ns) == (clock.wall, clock.mono)
    assert last_argument(replica, "query_state", BLOB) == [PARAMS.channel_id]


async def test_every_look_is_a_new_request(perun: PerunCanister, replica: TestReplica) -> None:
    replica.reply = candid.encode([opt(C_REGISTERED)], [None])
    first, second = await perun.query_state(PARAMS.channel_id), await perun.query_state(PARAMS.channel_id)
    assert (first.value, second.value) == (None, None)
    assert first.request_id != second.request_id


@pytest.mark.parametrize(
    "value",
    [
        registered(channel=bytes(64)),  # another channel's
        registered(channel=b"short"),
        registered(allocation=[1]),
        registered(allocation=[1, 2, 3]),
        registered(allocation=[2**64, 0]),
    ],
)
async def test_a_state_that_cannot_be_is_refused(
    perun: PerunCanister, replica: TestReplica, value: CandidValue
) -> None:
    replica.reply = candid.encode([opt(C_REGISTERED)], [value])
    with pytest.raises(UnexpectedReply):
        await perun.query_state(PARAMS.channel_id)


@pytest.mark.parametrize(
    ("holdings", "read"),
    [
        (None, None),
        (0, 0),
        (2**63 - 1, 2**63 - 1),
        (2**63, 2**63 - 1),
        (2**64, 2**63 - 1),
        (10**300, 2**63 - 1),
        (10**4_000, 2**63 - 1),
    ],
)
async def test_holdings(perun: PerunCanister, replica: TestReplica, holdings: int | None, read: int | None) -> None:
    """The published canister credits whatever anybody tells it: more than there can be is as much as there can be."""
    replica.reply = candid.encode([opt(NAT)], [holdings])
    assert (await perun.query_holdings(FUNDING)).value == read
    arguments = last_argument(replica, "query_holdings", record(channel=BLOB, participant=BLOB))
    assert arguments == [{"channel": PARAMS.channel_id, "participant": ALICE.public}]


async def test_events(perun: PerunCanister, replica: TestReplica) -> None:
    events: list[CandidValue] = [
        {"Funded": {"who": ALICE.public, "total": 7}},
        {"Disputed": registered()},
        {"Concluded": None},
    ]
    replica.reply = candid.encode([vec(C_EVENT)], [events])
    assert (await perun.query_events(PARAMS.channel_id, 3)).value == (
        Funded(ALICE.public, 7),
        Disputed(RegisteredState(STATE, Nanos(1_700_000_000_000_000_001))),
        Concluded(),
    )
    assert last_argument(replica, "query_events", BLOB, NAT64) == [PARAMS.channel_id, 3]


def page(*values: dict[str, CandidValue]) -> bytes:
    entries = [{"index": i, "channel": v["state"]["channel"], "state": v} for i, v in enumerate(values)]  # type: ignore[index,call-overload]
    return candid.encode([C_PAGE], [{"entries": entries, "head": 9}])


async def test_a_strangers_channel_does_not_hide_ours(perun: PerunCanister, replica: TestReplica) -> None:
    ours = RegisteredState(STATE, Nanos(1_700_000_000_000_000_001))
    replica.reply = page(registered(channel=b"x", allocation=[1, 2, 3]), registered(), registered(allocation=[2**90]))
    expected = DisputePage(
        (
            DisputeEntry(0, b"x", None),
            DisputeEntry(1, PARAMS.channel_id, ours),
            DisputeEntry(2, PARAMS.channel_id, None),
        ),
        9,
    )
    assert (await perun.disputes_since(0, 5000)).value == expected
    assert last_argument(replica, "disputes_since", NAT64, NAT32) == [0, 1000]
    assert await perun.hint_disputes_since(0, 10) == expected


async def test_a_hint_is_a_query_and_does_not_call(perun: PerunCanister, replica: TestReplica) -> None:
    replica.reply = candid.encode([opt(C_REGISTERED)], [registered()])
    hint = await perun.hint_state(PARAMS.channel_id)
    assert hint is not None
    assert hint.state == STATE
    assert replica.calls == []


Change = Callable[[PerunCanister], Awaitable[Any]]
CHANGES: list[tuple[str, Change]] = [
    ("deposit", lambda p: p.deposit(FUNDING)),
    ("dispute", lambda p: p.dispute(PARAMS, SIGNED)),
    ("conclude", lambda p: p.conclude(PARAMS, SIGNED)),
]


@pytest.mark.parametrize(("method", "change"), CHANGES, ids=[name for name, _ in CHANGES])
async def test_changes_answer_nothing_or_an_error(
    perun: PerunCanister, replica: TestReplica, method: str, change: Change
) -> None:
    replica.reply = candid.encode([opt(C_ERROR)], [None])
    assert (await change(perun)).value is None
    replica.reply = candid.encode([opt(C_ERROR)], [{"OutdatedState": None}])
    assert (await change(perun)).value is CanisterError.OUTDATED_STATE
    assert replica.calls[-1]["method_name"] == method
    replica.reply = candid.encode([opt(variant(Strange=NULL))], [{"Strange": None}])
    with pytest.raises(UnexpectedReply):
        await change(perun)


async def test_a_dispute_carries_what_was_signed(perun: PerunCanister, replica: TestReplica) -> None:
    replica.reply = candid.encode([opt(C_ERROR)], [None])
    await perun.dispute(PARAMS, SIGNED)
    params, signed = last_argument(
        replica,
        "dispute",
        record(nonce=BLOB, participants=vec(BLOB), challenge_duration=NAT64),
        record(state=C_STATE, sigs=vec(BLOB)),
    )
    assert params == {
        "nonce": PARAMS.nonce,
        "participants": list(PARAMS.participants),
        "challenge_duration": PARAMS.challenge_duration_ns,
    }
    assert signed == {"state": registered()["state"], "sigs": list(SIGNED.signatures)}


async def test_a_notification(perun: PerunCanister, replica: TestReplica) -> None:
    result = variant(Ok=NAT, Err=C_ERROR)
    replica.reply = candid.encode([result], [{"Ok": 500}])
    assert (await perun.transaction_notification(7)).value == 500
    replica.reply = candid.encode([result], [{"Err": {"ReceiverError": {"DuplicateTransaction": None}}}])
    assert (await perun.transaction_notification(7)).value is CanisterError.DUPLICATE_TRANSACTION


def test_every_error_of_the_interface_has_its_word() -> None:
    error = methods_of(PERUN_INTERFACE)["deposit"]
    for case in CanisterError:
        for word in case.value.split("."):
            assert f"{word} : " in error
    assert error.count(" : null") == len(CanisterError)


WITHDRAWAL = WithdrawalRequest(FUNDING, b"\x04")
C_WITHDRAWN = [opt(NAT64), opt(C_ERROR)]


async def test_a_withdrawal_is_stored_before_it_is_sent_and_paid_once(
    perun: PerunCanister, replica: TestReplica
) -> None:
    replica.reply = candid.encode(C_WITHDRAWN, [41, None])
    call = SignedCall.from_bytes(perun.sign_withdraw(WITHDRAWAL, bytes(64)).to_bytes())
    assert (await perun.submit_withdraw(call)).value == 41
    assert (await perun.submit_withdraw(call)).value == 41
    assert (await perun.outcome_of_withdraw(call)).value == 41
    assert {sent["id"] for sent in replica.calls} == {call.request_id}
    request, signature = last_argument(
        replica,
        "withdraw",
        record(funding=record(channel=BLOB, participant=BLOB), receiver=PRINCIPAL),
        BLOB,
    )
    assert request == {
        "funding": {"channel": PARAMS.channel_id, "participant": ALICE.public},
        "receiver": b"\x04",
    }
    assert signature == bytes(64)


@pytest.mark.parametrize("both", [(None, None), (41, {"OutdatedState": None})])
async def test_a_withdrawal_that_says_neither_or_both_is_refused(
    perun: PerunCanister, replica: TestReplica, both: tuple[CandidValue, CandidValue]
) -> None:
    replica.reply = candid.encode(C_WITHDRAWN, list(both))
    with pytest.raises(UnexpectedReply):
        await perun.withdraw(WITHDRAWAL, bytes(64))
    replica.reply = candid.encode(C_WITHDRAWN, [None, {"AlreadyConcluded": None}])
    assert (await perun.withdraw(WITHDRAWAL, bytes(64))).value is CanisterError.ALREADY_CONCLUDED


async def test_a_trap_is_no_answer(perun: PerunCanister, replica: TestReplica) -> None:
    async def trap(replica: TestReplica, request: object, request_id: bytes) -> None:
        replica.reject(request_id, message="Panicked at 'lock'")

    replica.answer_with("call", trap)
    with pytest.raises(CallRejected, match="Panicked"):
        await perun.deposit(FUNDING)


def publish(replica: TestReplica, did: str) -> None:
    replica.state = {b"canister": {CANISTER: {b"metadata": {b"candid:service": did.encode()}}}}


async def test_our_interface_is_accepted_in_any_spelling(perun: PerunCanister, replica: TestReplica) -> None:
    publish(replica, PERUN_INTERFACE)
    await perun.check_interface()
    assert not await perun.supports_disputes_since()
    inline = PERUN_INTERFACE.replace("type Funding = record { channel : blob; participant : blob };", "")
    inline = inline.replace("(Funding)", "(f : record { participant : vec nat8; channel : blob })")
    inline = inline.replace("funding : Funding", "funding : record { channel : blob; participant : blob }")
    inline = "// ours\n" + inline.replace(
        "service : {", "service : (record { ledger : principal }) -> {\n  x : () -> ();"
    )
    publish(replica, inline)
    await perun.check_interface()


async def test_disputes_since_is_found_in_the_certified_interface(perun: PerunCanister, replica: TestReplica) -> None:
    addition = DISPUTES_SINCE.split("service : {")[1]
    publish(replica, PERUN_INTERFACE.replace("service : {", "service : {" + addition.rsplit("}", 1)[0]))
    await perun.check_interface()
    assert await perun.supports_disputes_since()


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("query_state : (blob)", "query_status : (blob)", "it has no method query_state"),
        ("(blob, nat64) -> (vec Event) query", "(blob, nat64) -> (vec Event)", "its query_events is"),
        ("OutdatedState;", "", "its deposit is"),
        ("-> (opt nat64, opt Error)", "-> (variant { Ok : nat64; Err : Error })", "its withdraw is"),
        ("timeout : nat64", "timeout : nat", "its query_state is"),
    ],
)
async def test_another_interface_is_refused_by_what_differs(
    perun: PerunCanister, replica: TestReplica, old: str, new: str, named: str
) -> None:
    assert old in PERUN_INTERFACE
    publish(replica, PERUN_INTERFACE.replace(old, new))
    with pytest.raises(InterfaceMismatch, match=named) as caught:
        await perun.check_interface()
    assert "bkyz2-fmaaa-aaaaa-qaaaq-cai" in str(caught.value)
    assert caught.value.differences


@pytest.mark.parametrize("did", ["", "service", "service : {", "<html>", "type A = A; service : { f : (A) -> () }"])
async def test_an_interface_that_cannot_be_read(
    perun: PerunCanister, replica: TestReplica, did: str, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(replica, did)
    with pytest.raises((UnexpectedReply, InterfaceMismatch)):
        await perun.check_interface()
    assert capsys.readouterr() == ("", "")


async def test_a_canister_that_publishes_no_interface(perun: PerunCanister, replica: TestReplica) -> None:
    with pytest.raises(InterfaceUnknown, match="candid:service"):
        await perun.check_interface()
    assert not await perun.supports_disputes_since()
    publish(replica, PERUN_INTERFACE)
    replica.hidden = b"metadata"
    with pytest.raises(LyingReplica, match="hides"):
        await perun.check_interface()


def test_a_method_more_is_no_difference() -> None:
    ours = methods_of(PERUN_INTERFACE)
    assert differences(ours, {**ours, "more": "() -> ()"}) == ()


async def test_the_code_of_the_canister(perun: PerunCanister, replica: TestReplica) -> None:
    controllers = b"\xd9\xd9\xf7" + cbor2.dumps([b"\x04", b"\x01"])
    replica.state = {b"canister": {CANISTER: {b"module_hash": bytes(32), b"controllers": controllers}}}
    assert await perun.code() == CanisterCode(bytes(32), (b"\x04", b"\x01"), tells_install=True)
    replica.state = {b"canister": {CANISTER: {b"controllers": controllers}}}
    assert (await perun.code()).module_hash is None
    replica.state = {b"canister": {CANISTER: {b"module_hash": bytes(32), b"controllers": b"\xff"}}}
    with pytest.raises(LyingReplica, match="malformed"):
        await perun.code()
    replica.hidden = b"canister"
    with pytest.raises(LyingReplica, match="hides"):
        await perun.code()


async def test_an_argument_that_candid_cannot_express_is_not_sent(perun: PerunCanister, replica: TestReplica) -> None:
    with pytest.raises(UnencodableArgument):
        await perun.transaction_notification(2**64)
    assert replica.calls == []


async def test_a_reply_that_is_no_candid(perun: PerunCanister, replica: TestReplica) -> None:
    for reply in (b"", b"DIDL", b"DIDL\x00\x00", b"junk" * 10):
        replica.reply = reply
        with pytest.raises(UnexpectedReply):
            await perun.query_holdings(Funding(PARAMS.channel_id, ParticipantKey(bytes(32))))


async def test_a_node_cannot_sneak_a_hint_in_as_a_look(perun: PerunCanister, replica: TestReplica) -> None:
    signed = answer(lambda r, i: r.signed({"status": "replied", "reply": {"arg": r.reply}}, i))
    replica.answer_with("call", signed)
    with pytest.raises(LyingReplica, match="neither a certificate nor a reject"):
        await perun.query_state(PARAMS.channel_id)
