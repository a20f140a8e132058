"""The Perun canister: every method typed, every answer certified.

The canister's reads are made as calls, so that their answers are certified: plain queries appear only as hints,
under names that say so. The interface is DESIGN section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from chain import candid, cbor
from chain.agent import Agent
from chain.candid import BLOB, BOOL, NAT, NAT32, NAT64, NULL, PRINCIPAL, CandidValue, certain, record, variant, vec
from chain.cbor import MalformedCbor
from chain.certificate import uleb128_value
from chain.clock import Certified
from chain.errors import ChainError, InterfaceMismatch, InterfaceUnknown, LyingReplica, RequestRefused, UnexpectedReply
from chain.hash_tree import Missing
from chain.interface import DISPUTES_SINCE, PERUN_INTERFACE, differences, methods_of
from chain.numbers import bounded
from chain.principal import principal_to_text
from chain.request import SignedCall
from protocol.errors import Undecodable
from protocol.types import (
    MAX_INT64,
    ChannelId,
    Funding,
    Nanos,
    Params,
    RegisteredState,
    SignedState,
    State,
    WithdrawalRequest,
)

__all__ = [
    "CanisterCode",
    "CanisterError",
    "Concluded",
    "DisputeEntry",
    "DisputePage",
    "Disputed",
    "Event",
    "Funded",
    "PerunCanister",
    "shown_page",
    "shown_state",
]

LOOK_PATIENCE_S: Final = 60.0
"""A look without an answer by then is 'unknown'; a younger one is worth more than a longer wait."""
MAX_PAGE: Final = 1000
INSTALLED: Final = b"last_install_timestamp"
"""Source: interface specification 0.66, "The system state tree": a natural number of nanoseconds since 1970."""

_FUNDING: Final = record(channel=BLOB, participant=BLOB)
_PARAMS: Final = record(nonce=BLOB, participants=vec(BLOB), challenge_duration=NAT64)
_STATE: Final = record(channel=BLOB, version=NAT64, allocation=vec(NAT), finalized=BOOL)
_SIGNED: Final = record(state=_STATE, sigs=vec(BLOB))
_REGISTERED: Final = record(state=_STATE, timeout=NAT64)
_ERROR: Final = variant(
    Authentication=NULL,
    NotFinalized=NULL,
    AlreadyConcluded=NULL,
    InvalidInput=NULL,
    InsufficientFunding=NULL,
    OutdatedState=NULL,
    LedgerError=NULL,
    ReceiverError=variant(TransactionType=NULL, Recipient=NULL, DuplicateTransaction=NULL, FailedToQuery=NULL),
)
_EVENT: Final = variant(Funded=record(who=BLOB, total=NAT), Disputed=_REGISTERED, Concluded=NULL)
_WITHDRAWAL: Final = record(funding=_FUNDING, receiver=PRINCIPAL)
_PAGE: Final = record(entries=vec(record(index=NAT64, channel=BLOB, state=_REGISTERED)), head=NAT64)


class CanisterError(Enum):
    """The interface's `Error`, the cases of `ReceiverError` included.

    An error is 'no' only if no earlier call of the same intent can still have succeeded (rule 5).
    """

    AUTHENTICATION = "Authentication"
    NOT_FINALIZED = "NotFinalized"
    ALREADY_CONCLUDED = "AlreadyConcluded"
    INVALID_INPUT = "InvalidInput"
    INSUFFICIENT_FUNDING = "InsufficientFunding"
    OUTDATED_STATE = "OutdatedState"
    LEDGER_ERROR = "LedgerError"
    TRANSACTION_TYPE = "ReceiverError.TransactionType"
    RECIPIENT = "ReceiverError.Recipient"
    DUPLICATE_TRANSACTION = "ReceiverError.DuplicateTransaction"
    FAILED_TO_QUERY = "ReceiverError.FailedToQuery"


@dataclass(frozen=True, slots=True)
class Funded:
    """A deposit was credited. `who`: the participant's key; `total_e8s`: its holdings then."""

    who: bytes
    total_e8s: int


@dataclass(frozen=True, slots=True)
class Disputed:
    """A state was registered."""

    registered: RegisteredState


@dataclass(frozen=True, slots=True)
class Concluded:
    """The channel was settled."""


Event = Funded | Disputed | Concluded


@dataclass(frozen=True, slots=True)
class DisputeEntry:
    """One channel with a registered state. `index`: its place in the log, the newest registration's.

    `registered` is None for a channel that this node cannot have opened (more than two participants, say):
    a stranger's channel must not hide ours behind an error.
    """

    index: int
    channel: bytes
    registered: RegisteredState | None


@dataclass(frozen=True, slots=True)
class DisputePage:
    """A page of the log of registrations. `head`: the log's next index; below a cursor the log started anew."""

    entries: tuple[DisputeEntry, ...]
    head: int


@dataclass(frozen=True, slots=True)
class CanisterCode:
    """What runs in the canister, and who could change it. `module_hash`: 32 bytes, None if nothing is installed.

    `installed_ns`: when code was installed or a snapshot was put back for the last time, by the chain's clock; None
    if that was before replicas kept account of it. `tells_install`: whether the servers show it at all; older ones
    refuse the question.
    """

    module_hash: bytes | None
    controllers: tuple[bytes, ...]
    installed_ns: int | None = None
    tells_install: bool = False


class PerunCanister:
    """A client of one Perun canister. `canister_id`: raw principal.

    All methods raise what `Agent.submit` raises, and `UnexpectedReply`; looks give up after a minute.
    """

    def __init__(self, agent: Agent, canister_id: bytes) -> None:
        self._agent = agent
        self.canister_id: Final = canister_id
        self._methods: dict[str, str] | None = None

    # Looks: certified, each one a new request (rule 5).

    async def query_state(self, channel: ChannelId) -> Certified[RegisteredState | None]:
        """Look at a channel: its registered state, None while there is none."""
        answer = await self._look("query_state", candid.encode([BLOB], [channel]))
        return answer.with_value(_registered_in(answer.value, channel))

    async def query_holdings(self, funding: Funding) -> Certified[int | None]:
        """Look at a participant's holdings in e8s; None if it never had any."""
        answer = await self._look("query_holdings", candid.encode([_FUNDING], [_funding(funding)]))
        match candid.decode([certain(NAT)], answer.value):
            case [int(holdings)]:
                # The published canister credits whatever anybody tells it: more than there can be is as much as that.
                return answer.with_value(min(holdings, MAX_INT64))
            case _:
                return answer.with_value(None)

    async def query_events(self, channel: ChannelId, start: int) -> Certified[tuple[Event, ...]]:
        """Look at a channel's events from the given index on."""
        answer = await self._look("query_events", candid.encode([BLOB, NAT64], [channel, start]))
        (events,) = candid.decode([vec(_EVENT)], answer.value)
        return answer.with_value(tuple(_event(event) for event in _listed(events)))

    async def disputes_since(self, cursor: int, limit: int) -> Certified[DisputePage]:
        """Look at the registrations from index `cursor` on, at most `limit` (1 to 1000), one entry per channel.

        Only on canisters that have it: see `supports_disputes_since`.
        """
        answer = await self._look("disputes_since", _page_request(cursor, limit))
        return answer.with_value(_page(answer.value))

    async def query_state_everywhere(self, channel: ChannelId, within_s: float) -> Certified[RegisteredState | None]:
        """Look at a channel by a call that is given to every server at once: one may be keeping the answer back."""
        argument = candid.encode([BLOB], [channel])
        answer = await self._agent.call_everywhere(self.canister_id, "query_state", argument, within_s)
        return answer.with_value(_registered_in(answer.value, channel))

    # Hints: one node's word. They may start a look, never replace it.

    async def hint_state(self, channel: ChannelId) -> RegisteredState | None:
        """Ask one node for a channel's registered state. An answer that nobody can vouch for is a hint as well."""
        return _registered_in(await self._hint("query_state", candid.encode([BLOB], [channel])), channel)

    async def hint_disputes_since(self, cursor: int, limit: int) -> DisputePage:
        """Ask one node for the registrations, as above. A cursor must never be taken from it."""
        return _page(await self._hint("disputes_since", _page_request(cursor, limit)))

    async def _hint(self, method: str, argument: bytes) -> bytes:
        try:
            return await self._agent.query(self.canister_id, method, argument)
        except ChainError as error:
            if error.shown is None:
                raise
            return error.shown

    # Calls that change something.

    async def transaction_notification(self, block: int) -> Certified[int | CanisterError]:
        """Tell the canister of a ledger block that pays it; returns the e8s that it counted, or why not.

        `DUPLICATE_TRANSACTION` means that it was told already.
        """
        answer = await self._call("transaction_notification", candid.encode([NAT64], [block]))
        match candid.decode([variant(Ok=NAT, Err=_ERROR)], answer.value):
            case [{"Ok": int(amount)}]:
                return answer.with_value(amount)
            case [{"Err": error}]:
                return answer.with_value(_error(error))
            case _:
                raise UnexpectedReply("transaction_notification answered neither Ok nor Err")

    async def deposit(self, funding: Funding) -> Certified[CanisterError | None]:
        """Credit the transfers that the canister was told of to this funding; None is success."""
        return _outcome(await self._call("deposit", candid.encode([_FUNDING], [_funding(funding)])))

    async def dispute(self, params: Params, signed: SignedState) -> Certified[CanisterError | None]:
        """Register a state, or replace a registered one; None is success."""
        return _outcome(await self._call("dispute", _settlement(params, signed)))

    async def conclude(self, params: Params, signed: SignedState) -> Certified[CanisterError | None]:
        """Settle a channel; None is success."""
        return _outcome(await self._call("conclude", _settlement(params, signed)))

    async def register_everywhere(
        self, params: Params, signed: SignedState, within_s: float
    ) -> Certified[CanisterError | None]:
        """Refute: `dispute`, or `conclude` with a final state, by a call that is given to every server at once.

        That is never dishonest, so it waits for no proof of anything. Raises `ChainError` when nothing certified
        came back; the state may be registered all the same.
        """
        method = "conclude" if signed.state.finalized else "dispute"
        return _outcome(
            await self._agent.call_everywhere(self.canister_id, method, _settlement(params, signed), within_s)
        )

    async def withdraw(self, request: WithdrawalRequest, signature: bytes) -> Certified[int | CanisterError]:
        """Take holdings out; returns the payout's ledger block. A job stores `sign_withdraw`'s call instead."""
        await self._agent.ensure_time(self.canister_id)
        return await self.submit_withdraw(self.sign_withdraw(request, signature))

    def sign_withdraw(self, request: WithdrawalRequest, signature: bytes) -> SignedCall:
        """Return the call that takes holdings out, to be stored before it is submitted."""
        value: CandidValue = {"funding": _funding(request.funding), "receiver": request.receiver}
        argument = candid.encode([_WITHDRAWAL, BLOB], [value, signature])
        return self._agent.sign_call(self.canister_id, "withdraw", argument)

    async def submit_withdraw(self, call: SignedCall) -> Certified[int | CanisterError]:
        """Submit that call, as often as needed; it executes at most once."""
        answer = await self._agent.submit(call)
        return answer.with_value(_withdrawn(answer.value))

    async def outcome_of_withdraw(self, call: SignedCall) -> Certified[int | CanisterError]:
        """Find out what became of that call without sending it again."""
        answer = await self._agent.outcome(call)
        return answer.with_value(_withdrawn(answer.value))

    # What is this canister?

    async def check_interface(self) -> None:
        """Refuse a canister whose certified interface is not ours.

        Raises `InterfaceMismatch` (naming what differs) or `InterfaceUnknown` (it publishes none).
        """
        self._methods = None  # an upgrade may have changed it since
        differing = differences(methods_of(PERUN_INTERFACE), await self._interface())
        if differing:
            raise InterfaceMismatch(principal_to_text(self.canister_id), differing)

    async def supports_disputes_since(self) -> bool:
        """Whether the canister's certified interface has `disputes_since`; False too if it publishes none."""
        try:
            return not differences(methods_of(DISPUTES_SINCE), await self._interface())
        except InterfaceUnknown:
            return False

    async def code(self) -> CanisterCode:
        """Return the certified hash of the canister's code, its controllers, and when it was last installed.

        The same code installed again, or a snapshot put back, rolls back every channel and changes nothing but the
        last. Raises `Unreachable`, `RequestRefused`, `LyingReplica`.
        """
        base = (b"canister", self.canister_id)
        paths = [(*base, b"module_hash"), (*base, b"controllers")]
        told = True
        try:
            certificate = await self._agent.read_state(self.canister_id, [*paths, (*base, INSTALLED)])
        except RequestRefused:
            told = False
            certificate = await self._agent.read_state(self.canister_id, paths)
        module_hash = certificate.lookup(*base, b"module_hash")
        controllers = certificate.lookup(*base, b"controllers")
        if isinstance(controllers, Missing) or (isinstance(module_hash, Missing) and module_hash is not Missing.ABSENT):
            raise LyingReplica(
                f"a server hides code or controllers of the canister {principal_to_text(self.canister_id)}"
            )
        return CanisterCode(
            module_hash if isinstance(module_hash, bytes) else None,
            _principals(controllers),
            _installed_ns(certificate.lookup(*base, INSTALLED)) if told else None,
            told,
        )

    async def _interface(self) -> dict[str, str]:
        if self._methods is None:
            path = (b"canister", self.canister_id, b"metadata", b"candid:service")
            did = (await self._agent.read_state(self.canister_id, [path])).lookup(*path)
            if did is Missing.ABSENT:
                raise InterfaceUnknown(principal_to_text(self.canister_id))
            if isinstance(did, Missing):
                raise LyingReplica("a server hides the interface of the canister that it was asked for")
            self._methods = methods_of(did.decode(errors="replace"))
        return self._methods

    async def _look(self, method: str, argument: bytes) -> Certified[bytes]:
        return await self._agent.call(self.canister_id, method, argument, give_up_after_s=LOOK_PATIENCE_S)

    async def _call(self, method: str, argument: bytes) -> Certified[bytes]:
        return await self._agent.call(self.canister_id, method, argument)


def _funding(funding: Funding) -> CandidValue:
    return {"channel": funding.channel, "participant": funding.participant}


def _settlement(params: Params, signed: SignedState) -> bytes:
    state = signed.state
    settled: CandidValue = {
        "state": {
            "channel": state.channel,
            "version": state.version,
            "allocation": list(state.allocation),
            "finalized": state.finalized,
        },
        "sigs": list(signed.signatures),
    }
    value: CandidValue = {
        "nonce": params.nonce,
        "participants": list(params.participants),
        "challenge_duration": params.challenge_duration_ns,
    }
    return candid.encode([_PARAMS, _SIGNED], [value, settled])


def _registered_in(reply: bytes, channel: ChannelId) -> RegisteredState | None:
    (value,) = candid.decode([certain(_REGISTERED)], reply)
    if value is None:
        return None
    registered = _registered(value)
    if registered.state.channel != channel:
        raise UnexpectedReply("query_state answered with a state of another channel")
    return registered


def shown_state(error: ChainError, channel: ChannelId) -> RegisteredState | None:
    """Return the registered state that an answer to `query_state` showed without a proof, if it showed one."""
    if error.shown is None:
        return None
    try:
        return _registered_in(error.shown, channel)
    except UnexpectedReply:
        return None


def shown_page(error: ChainError) -> DisputePage | None:
    """Return the page that an answer to `disputes_since` showed without a proof, if it showed one."""
    if error.shown is None:
        return None
    try:
        return _page(error.shown)
    except UnexpectedReply:
        return None


def _registered(value: CandidValue) -> RegisteredState:
    match value:
        case {
            "state": {
                "channel": bytes(channel),
                "version": int(version),
                "allocation": [int(first), int(second)],
                "finalized": bool(finalized),
            },
            "timeout": int(timeout),
        }:
            try:
                state = State(ChannelId(channel), version, (first, second), finalized)
            except Undecodable as exc:
                raise UnexpectedReply(f"a registered state that cannot be: {exc}") from exc
            bounded(version, "a registered version")
            return RegisteredState(state, Nanos(bounded(timeout, "the end of a challenge period")))
        case _:
            raise UnexpectedReply("a registered state that is not of a channel of two")


def _event(value: CandidValue) -> Event:
    match value:
        case {"Funded": {"who": bytes(who), "total": int(total)}}:
            return Funded(who, total)
        case {"Disputed": registered}:
            return Disputed(_registered(registered))
        case {"Concluded": None}:
            return Concluded()
        case _:
            raise UnexpectedReply("an event of an unknown kind")


def _error(value: CandidValue) -> CanisterError:
    match value:
        case {"ReceiverError": {**inner}}:
            (name,) = inner
            return CanisterError(f"ReceiverError.{name}")
        case {**cases}:
            (name,) = cases
            return CanisterError(name)
        case _:
            raise UnexpectedReply("an error that is no variant")


def _outcome(answer: Certified[bytes]) -> Certified[CanisterError | None]:
    (value,) = candid.decode([certain(_ERROR)], answer.value)
    return answer.with_value(None if value is None else _error(value))


def _withdrawn(reply: bytes) -> int | CanisterError:
    match candid.decode([certain(NAT64), certain(_ERROR)], reply):
        case [int(block), None]:
            return bounded(block, "a block")
        case [None, value] if value is not None:
            return _error(value)
        case _:
            raise UnexpectedReply("withdraw answered with neither a block nor an error, or with both")


def _page_request(cursor: int, limit: int) -> bytes:
    return candid.encode([NAT64, NAT32], [cursor, max(1, min(limit, MAX_PAGE))])


def _page(reply: bytes) -> DisputePage:
    match candid.decode([_PAGE], reply):
        case [{"entries": entries, "head": int(head)}]:
            return DisputePage(tuple(_entry(entry) for entry in _listed(entries)), bounded(head, "a place in the log"))
        case _:
            raise UnexpectedReply("disputes_since answered with something else than a page")


def _entry(value: CandidValue) -> DisputeEntry:
    match value:
        case {"index": int(index), "channel": bytes(channel), "state": state}:
            try:
                registered = _registered(state)
            except UnexpectedReply:
                return DisputeEntry(index, channel, None)
            return DisputeEntry(index, channel, registered if registered.state.channel == channel else None)
        case _:
            raise UnexpectedReply("an entry of disputes_since that is no record")


def _listed(value: CandidValue) -> list[CandidValue]:
    if not isinstance(value, list):
        raise UnexpectedReply("a reply without the vector that it should have")
    return value


def _installed_ns(found: bytes | Missing) -> int | None:
    if found is Missing.ABSENT:
        return None
    if isinstance(found, Missing):
        raise LyingReplica("a server hides when the canister was last installed")
    time_ns = uleb128_value(found)
    if time_ns > MAX_INT64:
        raise LyingReplica(f"the canister is said to have been installed at {time_ns} ns, which is no time")
    return time_ns


def _principals(leaf: bytes) -> tuple[bytes, ...]:
    try:
        value = cbor.decode(leaf)
    except MalformedCbor as exc:
        raise LyingReplica(f"the certified controllers are malformed: {exc}") from exc
    principals = tuple(item for item in value if isinstance(item, bytes)) if isinstance(value, list) else ()
    if not isinstance(value, list) or len(principals) != len(value):
        raise LyingReplica("the certified controllers are no list of principals")
    return principals
