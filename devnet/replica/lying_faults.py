"""Faults of replicas that lie: answers that are old, forged, rejected, or true about another question.

What they sign they sign with the keys that a dishonest node has: its own, that of a subnet of its own, but never
the root key over what is not so. The one exception is `reject_certified`: an overloaded subnet rejects for real.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, Final

from aiohttp import web

from devnet.candid import BLOB, NAT32, NAT64, NotCandid, decode, encode
from devnet.canister import CanisterModule
from devnet.perun.interface import DISPUTES, Disputes
from devnet.replica import cbor
from devnet.replica.delegation import delegation
from devnet.replica.envelope import Invocation
from devnet.replica.exchange import Exchange, body_of, cbor_response
from devnet.replica.execution import Executor
from devnet.replica.hash_tree import witness
from devnet.replica.keys import NodeKey, RootKey
from devnet.replica.order import Behaviour, Order
from devnet.replica.outcomes import Outcome, Rejected, Replied
from devnet.replica.principals import self_authenticating
from devnet.replica.rounds import Round
from devnet.replica.state_tree import FIRST_CANISTER, LAST_CANISTER

__all__ = ["LYING_FAULTS", "Copy", "NoPast", "Replayed", "StaleCertificate", "StaleQuery"]

_OVERLOADED: Final = Rejected(2, "Subnet is overloaded (a fault that was ordered)", "IC0202")
_ANOTHER_REQUEST: Final = b"\x77" * 32
_NOBODYS_CHANNEL: Final = bytes(64)
_FAR_AHEAD: Final = 2**62

Copy = Callable[[], Mapping[bytes, CanisterModule]]
"""Returns canisters as those of the network are now; queries of them change and see nothing later."""


class NoPast(ValueError):
    """The network cannot be copied, so it has no older state to answer from."""


class CallFault(Behaviour):
    """A fault of calls."""

    endpoints: ClassVar[frozenset[str]] = frozenset({"call"})


class QueryFault(Behaviour):
    """A fault of queries."""

    endpoints: ClassVar[frozenset[str]] = frozenset({"query"})


class CertificateFault(Behaviour):
    """A fault of what is answered with a certificate."""

    endpoints: ClassVar[frozenset[str]] = frozenset({"call", "read_state"})


class AnyFault(Behaviour):
    """A fault of every endpoint."""

    endpoints: ClassVar[frozenset[str]] = frozenset({"call", "query", "read_state"})


class Reject(CallFault):
    """Not done: one node refuses the call, and nothing of it is certified."""

    async def serve(self, exchange: Exchange) -> web.StreamResponse:
        """Refuse before consensus."""
        fields: dict[str, cbor.Value] = {
            "reject_code": _OVERLOADED.reject_code,
            "reject_message": _OVERLOADED.reject_message,
            "error_code": _OVERLOADED.error_code,
        }
        return cbor_response(
            cbor.encode(fields if exchange.asynchronous else {"status": "non_replicated_rejection", **fields})
        )


class RejectExecuted(Reject):
    """Done, but the node says that it refused the call."""

    async def serve(self, exchange: Exchange) -> web.StreamResponse:
        """Execute, and deny it."""
        await exchange.answer()
        return await super().serve(exchange)


class RejectCertified(CallFault):
    """Not done: the subnet rejects the call, and certifies that."""

    async def serve(self, exchange: Exchange) -> web.StreamResponse:
        """Take the call up and end it at once."""
        exchange.replica.end_at_once(exchange.id, exchange.body, _OVERLOADED)
        return await exchange.answer()


class StaleCertificate(CertificateFault):
    """Done, and answered from the state of the network as it was when the fault was ordered, in its old signature."""

    def __init__(self, order: Order, then: Round) -> None:
        super().__init__(order)
        self._then = then

    async def serve(self, exchange: Exchange) -> web.StreamResponse:
        """Answer from the old state."""
        if not await exchange.certified():
            return await exchange.answer()
        return exchange.with_certificate(self._then.certificate(exchange.paths))


class Replayed(AnyFault):
    """Done, and answered with what was certified for another request (or with what a node signed for it)."""

    def __init__(self, order: Order, then: Round) -> None:
        super().__init__(order)
        self._then = then

    async def serve(self, exchange: Exchange) -> web.StreamResponse:
        """Answer with somebody else's answer."""
        replica = exchange.replica
        if exchange.endpoint == "query":
            outcome = await replica.ask(exchange.id, exchange.body)
            return cbor_response(replica.signed_answer(_ANOTHER_REQUEST, outcome))
        if not await exchange.certified():
            return await exchange.answer()
        return exchange.with_certificate(self._then.certificate([(b"request_status", _ANOTHER_REQUEST)]))


class HiddenStatus(CertificateFault):
    """Done, and answered with a genuine certificate in which the status of every request is pruned."""

    async def serve(self, exchange: Exchange) -> web.StreamResponse:
        """Hide what became of the call."""
        if not await exchange.certified():
            return await exchange.answer()
        current = await exchange.replica.rounds.certified()
        return exchange.with_certificate(
            current.certificate([p for p in exchange.paths if p[:1] != (b"request_status",)])
        )


class WrongSignature(AnyFault):
    """Done, and one bit of the signature under the answer is flipped: the subnet's, or a query's node's."""

    async def serve(self, exchange: Exchange) -> web.StreamResponse:
        """Spoil the signature."""
        answer = await exchange.answer()
        fields = _fields(answer)
        match fields:
            case {"certificate": bytes(encoded)}:
                certificate = cbor.decode(encoded)
                assert isinstance(certificate, dict)
                certificate["signature"] = _flipped(certificate["signature"])
                return exchange.with_certificate(cbor.encode(certificate))
            case {"signatures": [dict(signature)]}:
                spoiled: cbor.Value = {**signature, "signature": _flipped(signature["signature"])}
                return cbor_response(cbor.encode({**fields, "signatures": [spoiled]}))
            case _:
                return answer


class WrongNode(QueryFault):
    """Done, and signed by somebody who is no node of the subnet."""

    async def serve(self, exchange: Exchange) -> web.StreamResponse:
        """Sign with a key of our own."""
        replica = exchange.replica
        outcome = await replica.ask(exchange.id, exchange.body)
        return cbor_response(replica.signed_answer(exchange.envelope.request_id, outcome, NodeKey.generate()))


class WrongKey(CertificateFault):
    """Done, and the true state is signed with another key than the root's, without a delegation."""

    async def serve(self, exchange: Exchange) -> web.StreamResponse:
        """Sign with a key of our own."""
        if not await exchange.certified():
            return await exchange.answer()
        current = await exchange.replica.rounds.certified()
        forged = Round(current.tree, RootKey.generate().sign(current.tree.digest))
        return exchange.with_certificate(forged.certificate(exchange.paths))


class _Delegated(CertificateFault):
    """The true state, signed by a subnet of the liar's, with a delegation."""

    async def serve(self, exchange: Exchange) -> web.StreamResponse:
        """Sign by delegation."""
        if not await exchange.certified():
            return await exchange.answer()
        subnet = RootKey.generate()
        tree = (await exchange.replica.rounds.certified()).tree
        shown = witness(tree, [(b"time",), *exchange.paths])
        return exchange.with_certificate(
            cbor.encode(
                {
                    "tree": shown.cbor(),
                    "signature": subnet.sign(tree.digest),
                    "delegation": self._delegation(exchange.replica.root_key, subnet),
                }
            )
        )

    @abstractmethod
    def _delegation(self, root: RootKey, subnet: RootKey) -> cbor.Value:
        """Return the delegation to the subnet."""


class DelegationByStranger(_Delegated):
    """Done; the delegation is signed by another key than the root's."""

    def _delegation(self, root: RootKey, subnet: RootKey) -> cbor.Value:
        del root
        return delegation(RootKey.generate(), subnet, FIRST_CANISTER, LAST_CANISTER)


class DelegationOfOtherSubnet(_Delegated):
    """Done; the delegation is genuine, but it is another subnet's than the one that it is said to be for."""

    def _delegation(self, root: RootKey, subnet: RootKey) -> cbor.Value:
        genuine = delegation(root, RootKey.generate(), FIRST_CANISTER, LAST_CANISTER)
        return {**genuine, "subnet_id": self_authenticating(subnet.public_der)}


class DelegationOutOfRange(_Delegated):
    """Done; the delegation is genuine and the subnet's own, but the canister is not among those it hosts."""

    def _delegation(self, root: RootKey, subnet: RootKey) -> cbor.Value:
        return delegation(root, subnet, FIRST_CANISTER, FIRST_CANISTER)


class StaleQuery(QueryFault):
    """Answered by a node that has not moved since the fault was ordered, under a fresh signature of that node."""

    def __init__(self, order: Order, copy: Copy | None) -> None:
        super().__init__(order)
        if copy is None:
            raise NoPast("this network has no copies of its canisters to answer from")
        self._then = Executor(copy())

    async def serve(self, exchange: Exchange) -> web.StreamResponse:
        """Answer from the old state."""
        content = exchange.envelope.content
        assert isinstance(content, Invocation)
        outcome = await self._then.query(content, exchange.replica.clock.now_ns())
        return cbor_response(exchange.replica.signed_answer(exchange.envelope.request_id, outcome))


class HiddenRegistration(QueryFault):
    """Answered as if no channel were registered: truly, about a channel of nobody, and a log read to its end."""

    async def serve(self, exchange: Exchange) -> web.StreamResponse:
        """Answer another question."""
        content = exchange.envelope.content
        assert isinstance(content, Invocation)
        asked = _harmless(content)
        if asked is None:
            return await exchange.answer()
        outcome: Outcome = await exchange.replica.ask(exchange.id, exchange.body, asked)
        return cbor_response(exchange.replica.signed_answer(exchange.envelope.request_id, outcome))


class FarCursor(QueryFault):
    """Answered as if the log of registrations went on far ahead: who follows it there misses what comes."""

    async def serve(self, exchange: Exchange) -> web.StreamResponse:
        """Answer `disputes_since` with a lie; everything else is true."""
        content = exchange.envelope.content
        assert isinstance(content, Invocation)
        if content.method != "disputes_since":
            return await exchange.answer()
        page = Replied(encode((DISPUTES,), Disputes((), _FAR_AHEAD)))
        return cbor_response(exchange.replica.signed_answer(exchange.envelope.request_id, page))


def _harmless(content: Invocation) -> bytes | None:
    """Return the argument to ask with instead, None for a method that tells nothing of registrations."""
    match content.method:
        case "query_state":
            return encode((BLOB,), _NOBODYS_CHANNEL)
        case "disputes_since":
            try:
                start, _ = decode(content.arg, NAT64, NAT32)
            except NotCandid:
                return None
            return encode((NAT64, NAT32), start, 0)
        case _:
            return None


def _fields(answer: web.StreamResponse) -> dict[str, cbor.Value]:
    body = body_of(answer)
    if answer.status != 200 or not body:
        return {}
    fields = cbor.decode(body)
    return fields if isinstance(fields, dict) else {}


def _flipped(signature: cbor.Value) -> bytes:
    assert isinstance(signature, bytes)
    return signature[:-1] + bytes([signature[-1] ^ 1])


LYING_FAULTS: Final[dict[str, type[Behaviour]]] = {
    "reject": Reject,
    "reject_executed": RejectExecuted,
    "reject_certified": RejectCertified,
    "hidden_status": HiddenStatus,
    "wrong_signature": WrongSignature,
    "wrong_node": WrongNode,
    "wrong_key": WrongKey,
    "delegation_by_stranger": DelegationByStranger,
    "delegation_of_other_subnet": DelegationOfOtherSubnet,
    "delegation_out_of_range": DelegationOutOfRange,
    "hidden_registration": HiddenRegistration,
    "far_cursor": FarCursor,
}
