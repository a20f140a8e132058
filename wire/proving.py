"""Proving that a node is where somebody says it is, without touching the session that exists with it.

The first two acts of the handshake are enough: act two authenticates only under the private key of the node that
was meant. The connection ends there, so the other side sees a handshake that was not finished, and no new session.
"""

from __future__ import annotations

import asyncio
import contextlib

from coincurve import PrivateKey

from wire.address import Address
from wire.errors import DialTimedOut, HandshakeFailed, NotThatPeer, PeerUnreachable
from wire.nearness import Nearness, connect_within
from wire.noise import ACT_BYTES, Initiator
from wire.text import safe_text

__all__ = ["prove"]


async def prove(key: PrivateKey, peer: bytes, place: Address, within_s: float, nearest: Nearness | None = None) -> None:
    """Return when this node (33 bytes, a valid point) proved that it answers there. Raises a `DialFailed`.

    `nearest`: go nowhere that is nearer to this machine; None: anywhere.
    """
    handshake = Initiator(key, peer)
    try:
        async with asyncio.timeout(within_s):
            try:
                reader, writer = await connect_within(
                    place, nearest, lambda host: asyncio.open_connection(host, place.port)
                )
            except (OSError, ValueError) as error:
                raise PeerUnreachable(f"cannot connect to {place}: {safe_text(str(error))}") from error
            try:
                writer.write(handshake.begin())
                handshake.receive(await reader.readexactly(ACT_BYTES[2]))
            except (OSError, asyncio.IncompleteReadError) as error:
                raise PeerUnreachable(f"the node at {place} ended the connection during the handshake") from error
            except HandshakeFailed as error:
                raise NotThatPeer(f"who answers at {place} is another node: {error}") from error
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except TimeoutError as error:
        raise DialTimedOut(f"no handshake with {place} within {within_s:g} s") from error
