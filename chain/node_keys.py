"""Answers to plain queries: one node's word, checked to be a node of the subnet that hosts the canister.

That proves who said it, not that it is true. Source: specification, "Query call"; a node's key is certified at
`/subnet/<subnet>/node/<node>/public_key`.
"""

from __future__ import annotations

import asyncio
from typing import Final

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from chain.answers import QueryAnswer
from chain.certificate import Certificate
from chain.errors import ChainError, LyingReplica, RequestRefused, Unreachable
from chain.hash_tree import HashTree
from chain.identity import ED25519_DER_PREFIX, Anonymous
from chain.principal import principal_to_text
from chain.request import hash_of_map
from chain.state_reader import SECOND, StateReader
from chain.transport import Endpoint

__all__ = ["NodeKeys"]

RESPONSE_DOMAIN: Final = b"\x0bic-response"
KEYS_TTL_NS: Final = 300 * SECOND
KEYS_PATIENCE_S: Final = 2.0
NO_KEYS_TTL_NS: Final = 10 * SECOND
"""Where keys were not to be had, they are not asked for again before: each query's answer would wait for them."""
MAX_ANSWER_AGE_NS: Final = 300 * SECOND


class NodeKeys:
    """The keys of the nodes that may answer for a canister, certified, kept for five minutes."""

    def __init__(self, reader: StateReader) -> None:
        self._reader = reader
        self._known: dict[bytes, tuple[int, dict[bytes, bytes]]] = {}
        self._subnets: dict[bytes, bytes] = {}
        """Where each canister was when it was last asked for. It may move: whatever fails by that is asked anew."""
        self._failed: dict[tuple[str, bytes], tuple[int, ChainError]] = {}

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
            self._subnets.pop(canister, None)
            nodes, _ = await self._nodes(server, canister)
            self._verify(nodes, request_id, answer)

    async def _nodes(self, server: Endpoint, canister: bytes) -> tuple[dict[bytes, bytes], bool]:
        now_ns = self._reader.clock.monotonic_ns()
        known = self._known.get(canister)
        if known is not None and now_ns - known[0] < KEYS_TTL_NS:
            return known[1], False
        failed = self._failed.get((server.url, canister))
        if failed is not None and now_ns < failed[0]:
            raise LyingReplica(str(failed[1])) from failed[1]
        try:
            nodes = await self._in_time(server, canister)
        except ChainError as error:
            self._failed[server.url, canister] = (now_ns + NO_KEYS_TTL_NS, error)
            raise
        self._failed.pop((server.url, canister), None)
        self._known[canister] = (now_ns, nodes)
        return nodes, True

    async def _in_time(self, server: Endpoint, canister: bytes) -> dict[bytes, bytes]:
        try:
            async with asyncio.timeout(KEYS_PATIENCE_S):
                return await self._ask_subnet(server, canister) or _node_keys(
                    await self._reader.read(server, canister, [(b"subnet",)], Anonymous())
                )
        except TimeoutError:
            raise LyingReplica(
                f"{server.url} did not show the keys of its nodes within {KEYS_PATIENCE_S:g} s"
            ) from None

    async def _ask_subnet(self, server: Endpoint, canister: bytes) -> dict[bytes, bytes] | None:
        """Return the keys as the subnet itself shows them, or None where only the canister can be asked.

        Reading `/subnet` at a canister is the old way, which servers may give up.
        """
        try:
            subnet_id = self._subnets.get(canister)
            if subnet_id is None:
                # It was verified that this subnet hosts the canister.
                subnet_id = (await self._reader.read(server, canister, [(b"time",)], Anonymous())).subnet_id
            shown = [(b"subnet", subnet_id), (b"canister_ranges", subnet_id)]
            certificate = await self._reader.read_subnet(server, subnet_id, shown)
            if not certificate.hosts(canister):
                self._subnets.pop(canister, None)
                return None
            self._subnets[canister] = subnet_id
            return _node_keys(certificate)
        except (RequestRefused, LyingReplica, Unreachable):
            self._subnets.pop(canister, None)  # it may have moved; or the server knows no such endpoint
            return None

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
