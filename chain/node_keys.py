"""Answers to plain queries: one node's word, checked to be a node of the subnet that hosts the canister.

That proves who said it, not that it is true. Source: specification, "Query call"; a node's key is certified at
`/subnet/<subnet>/node/<node>/public_key`.
"""

from __future__ import annotations

from typing import Final

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from chain.answers import QueryAnswer
from chain.certificate import Certificate
from chain.errors import LyingReplica
from chain.hash_tree import HashTree
from chain.identity import ED25519_DER_PREFIX, Anonymous
from chain.principal import principal_to_text
from chain.request import hash_of_map
from chain.state_reader import SECOND, StateReader
from chain.transport import Endpoint

__all__ = ["NodeKeys"]

RESPONSE_DOMAIN: Final = b"\x0bic-response"
KEYS_TTL_NS: Final = 300 * SECOND
MAX_ANSWER_AGE_NS: Final = 300 * SECOND


class NodeKeys:
    """The keys of the nodes that may answer for a canister, certified, kept for five minutes."""

    def __init__(self, reader: StateReader) -> None:
        self._reader = reader
        self._known: dict[bytes, tuple[int, dict[bytes, bytes]]] = {}

    async def check(self, server: Endpoint, canister: bytes, request_id: bytes, answer: QueryAnswer) -> None:
        """Raise `LyingReplica` unless nodes of the canister's subnet signed this answer to this request."""
        nodes, fresh = await self._nodes(server, canister)
        try:
            self._verify(nodes, request_id, answer)
        except LyingReplica:
            # A node that joined since, perhaps. Asked once: a liar must not make us ask for keys for ever.
            if fresh:
                raise
            del self._known[canister]
            nodes, _ = await self._nodes(server, canister)
            self._verify(nodes, request_id, answer)

    async def _nodes(self, server: Endpoint, canister: bytes) -> tuple[dict[bytes, bytes], bool]:
        now_ns = self._reader.clock.monotonic_ns()
        known = self._known.get(canister)
        if known is not None and now_ns - known[0] < KEYS_TTL_NS:
            return known[1], False
        certificate = await self._reader.read(server, canister, [(b"subnet",)], Anonymous())
        nodes = _node_keys(certificate)
        self._known[canister] = (now_ns, nodes)
        return nodes, True

    def _verify(self, nodes: dict[bytes, bytes], request_id: bytes, answer: QueryAnswer) -> None:
        if not answer.signatures:
            raise LyingReplica("the answer to a query is not signed by any node")
        if len(answer.signatures) > len(nodes):
            raise LyingReplica("the answer to a query bears more signatures than its subnet has nodes")
        oldest = self._reader.asked_at_ns() - MAX_ANSWER_AGE_NS
        for signature in answer.signatures:
            key = nodes.get(signature.node)
            if key is None:
                raise LyingReplica("the answer to a query is signed by a node that is not of the canister's subnet")
            if signature.timestamp_ns < oldest:
                raise LyingReplica("the answer to a query is more than five minutes old")
            signed = RESPONSE_DOMAIN + hash_of_map(answer.signed_map(request_id, signature.timestamp_ns))
            try:
                VerifyKey(key).verify(signed, signature.signature)
            except (BadSignatureError, ValueError) as exc:
                raise LyingReplica(
                    f"the signature of node {principal_to_text(signature.node)} under a query's answer is wrong"
                ) from exc


def _node_keys(certificate: Certificate) -> dict[bytes, bytes]:
    nodes = certificate.tree.subtree((b"subnet", certificate.subnet_id, b"node"))
    keys: dict[bytes, bytes] = {}
    for node, entry in nodes.children() if isinstance(nodes, HashTree) else ():
        der = entry.lookup((b"public_key",))
        if isinstance(der, bytes) and len(der) == 44 and der.startswith(ED25519_DER_PREFIX):
            keys[node] = der[len(ED25519_DER_PREFIX) :]
    if not keys:
        raise LyingReplica("a certificate does not show the nodes of the canister's subnet")
    return keys
