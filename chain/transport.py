"""HTTP to the servers of the Internet Computer: bounded in size, time and number, believing nothing.

It tells apart what decides about money: a request that cannot have left, one that may have arrived, and an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import urlsplit

import aiohttp

from chain.errors import ChainError, LyingReplica, RequestRefused, Unreachable, UnsafeRootKey

__all__ = ["Endpoint", "Kind", "NoAnswer", "Response", "Transport", "endpoints", "is_mainnet"]

Kind = Literal["call", "query", "read_state", "subnet_read_state"]
VERSIONS: Final[dict[Kind, tuple[int, ...]]] = {
    "call": (4, 3, 2),
    "query": (3, 2),
    "read_state": (3, 2),
    "subnet_read_state": (3, 2),
}
"""Newest first; a server that does not know one answers 404."""
MAX_BODY_BYTES: Final = 4 << 20
"""A replica's answers have at most 3 MiB."""
TIMEOUT_S: Final[dict[Kind, float]] = {"call": 30.0, "query": 15.0, "read_state": 15.0, "subnet_read_state": 15.0}
"""A call is held up to 10 s by the replica until its certificate is there."""
CONNECT_TIMEOUT_S: Final = 10.0
MAINNET_HOSTS: Final = ("icp0.io", "ic0.app", "internetcomputer.org", "icp-api.io", "icp.net")
URGENT_SLOTS: Final = 96
"""Kept for what must not wait behind requests whose answers are kept back."""
MAX_SHOWN: Final = 300
CBOR_HEADERS: Final = {"Content-Type": "application/cbor", "Accept-Encoding": "identity"}


class NoAnswer(Unreachable):
    """The request was, or may have been, sent, but no answer came: it may have arrived."""


@dataclass(slots=True)
class Endpoint:
    """One server. `version`: place in `VERSIONS` of what it is known to speak."""

    url: str
    version: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(VERSIONS, 0))


@dataclass(frozen=True, slots=True)
class Response:
    """A status below 400 with its whole body. `version`: of the interface that answered."""

    status: int
    body: bytes
    version: int


def endpoints(urls: Sequence[str]) -> list[Endpoint]:
    """Return the servers behind these URLs. Raises `ChainError` for one that is not http(s)://host[:port]."""
    found: list[Endpoint] = []
    for url in urls:
        if not _is_address(url):
            raise ChainError(f"{url!r} is no address of a replica; it looks like https://icp-api.io")
        found.append(Endpoint(url.rstrip("/")))
    if not found:
        raise ChainError("no URL of the Internet Computer is configured; one is needed, such as https://icp-api.io")
    return found


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port  # checked when it is read
    except ValueError:  # brackets without an IPv6 address, characters that look like others, a port above 65535
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and not parts.query and not parts.fragment


def is_mainnet(url: str) -> bool:
    """Whether the URL leads to the Internet Computer itself rather than to a local network."""
    host = (urlsplit(url).hostname or "").lower().rstrip(".")
    return any(host == name or host.endswith("." + name) for name in MAINNET_HOSTS)


class Transport:
    """One pooled session for all requests. `max_in_flight`: requests at the same time; others wait."""

    def __init__(self, http: aiohttp.ClientSession | None, max_in_flight: int) -> None:
        self._given = http
        self._own: aiohttp.ClientSession | None = None
        self._slots = asyncio.Semaphore(max_in_flight)
        self._urgent = asyncio.Semaphore(URGENT_SLOTS)
        self._connections = max_in_flight + URGENT_SLOTS

    async def close(self) -> None:
        """Close the session, unless it was given to us."""
        if self._own is not None:
            await self._own.close()
            self._own = None

    async def post(self, endpoint: Endpoint, target: str, kind: Kind, body: bytes, *, urgent: bool = False) -> Response:
        """Post a request in the newest version that the server knows. `target`: a canister's or subnet's principal.

        Raises `NoAnswer` (may have arrived), `Unreachable` (cannot have), `RequestRefused`, `LyingReplica`.
        """
        versions = VERSIONS[kind]
        for place in range(endpoint.version[kind], len(versions)):
            where = f"subnet/{target}/read_state" if kind == "subnet_read_state" else f"canister/{target}/{kind}"
            url = f"{endpoint.url}/api/v{versions[place]}/{where}"
            status, answer = await self._request("POST", url, body, TIMEOUT_S[kind], self._urgent if urgent else None)
            # 404 also means "no such path in the state": only an older version that does answer is remembered.
            if status == 404 and place + 1 < len(versions):
                continue
            if status < 500 and status not in {404, 429}:
                endpoint.version[kind] = place
            return Response(status, _accepted(url, status, answer), versions[place])
        raise AssertionError("every endpoint knows a version")

    async def status(self, url: str) -> bytes:
        """Return the CBOR of a replica's status page."""
        (endpoint,) = endpoints([url])
        if is_mainnet(url):
            raise UnsafeRootKey(
                f"{url} is the Internet Computer itself: its root key is built in and is never fetched; "
                "remove the setting that marks this network as local"
            )
        page = f"{endpoint.url}/api/v2/status"
        status, answer = await self._request("GET", page, b"", TIMEOUT_S["query"])
        return _accepted(page, status, answer)

    def _session(self) -> aiohttp.ClientSession:
        if self._given is not None:
            return self._given
        if self._own is None:
            self._own = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections, limit_per_host=self._connections),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._own

    async def _request(
        self, method: str, url: str, body: bytes, timeout_s: float, slots: asyncio.Semaphore | None = None
    ) -> tuple[int, bytes]:
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        async with slots or self._slots:
            try:
                async with self._session().request(
                    method, url, data=body, headers=CBOR_HEADERS, timeout=timeout, allow_redirects=False
                ) as answer:
                    return answer.status, await _bounded_body(url, answer)
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as exc:
                raise Unreachable(url, f"no connection ({exc})") from exc
            except TimeoutError as exc:
                raise NoAnswer(url, f"no answer within {timeout_s:g} s") from exc
            except (aiohttp.ClientError, OSError) as exc:
                raise NoAnswer(url, f"the connection broke ({type(exc).__name__} {exc})") from exc


async def _bounded_body(url: str, answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise LyingReplica(f"{url} sent more than {MAX_BODY_BYTES} bytes; no answer of a replica is so large")
    return bytes(body)


def _accepted(url: str, status: int, body: bytes) -> bytes:
    if 200 <= status < 300:
        return body
    reason = "".join(c if c.isprintable() else " " for c in body[:MAX_SHOWN].decode(errors="replace")).strip()
    if status == 429 or status >= 500:
        raise NoAnswer(url, f"HTTP {status}: {reason or '(no reason given)'}")
    raise RequestRefused(url, status, reason)
