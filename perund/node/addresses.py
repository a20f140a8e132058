"""Where peers can be dialed: given by the operator, announced by the peers themselves, proven by handshakes.

What was not proven replaces nothing that was. A peer can tell us anything about itself, so what it announced is kept
for those with channels and those that our operator chose, a few addresses of each; dialed for those with money and
those chosen; and leads to nothing that is nearer to this machine than the peer was (docs/adr/0021-addresses.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from perund.node.effort import NO_CHANNEL_S, RESUME_AGAIN_S
from perund.recovery.saved import peer_part
from perund.store.jobs import record_addresses
from perund.store.rows import PeerAddress, proven
from protocol.messages import FEATURE_ADDRESSES, Addresses
from wire.address import MOST_PROVEN, Address, BadAddress, announced_address
from wire.keeper import Target
from wire.nearness import Nearness, is_ip, nearness_of

if TYPE_CHECKING:
    from perund.config import Config
    from perund.node.services import Services
    from wire.session import Session

__all__ = ["AddressBook", "announced_by"]

LISTEN: Final = "listen"
PROVEN_AGAIN_MS: Final = 3_600_000
"""How old the newest proof may be before the next one is written down."""


def announced_by(config: Config, listening: str | None) -> tuple[Address, ...]:
    """Return where a node says that it can be dialed. `listening`: host:port on which it listens, if it does.

    The word `listen` in `wire.announce` stands for that, if it is a public IP address: a private one is told to nobody
    unasked. On a devnet, where all addresses are private, it may be any at which somebody can be dialed.
    """
    found: dict[Address, None] = {}
    for text in config.wire.announce:
        if text != LISTEN:
            found[Address.of(text)] = None
        elif listening is not None:
            host, port = Address.to_listen_on(listening)
            nearness = nearness_of(host)
            try:
                if nearness is Nearness.PUBLIC or (nearness is not None and config.network == "local"):
                    found[announced_address(host, port)] = None
            except BadAddress:
                continue  # an address with a scope has a meaning on this machine alone
    return tuple(found)


class AddressBook:
    """The addresses of all peers, in memory and in the store, and what is dialed because of them."""

    def __init__(
        self,
        services: Services,
        has_channel: Callable[[bytes], bool],
        is_wanted: Callable[[bytes], bool],
        has_money: Callable[[bytes], bool],
        may_dial: Callable[[], bool],
    ) -> None:
        """About a node key: whether it has a channel with us; or an opening at least; and whether there is money in
        one. `may_dial`: whether this node dials anybody at all.
        """
        self._services = services
        self._has_channel = has_channel
        self._is_wanted = is_wanted
        self._has_money = has_money
        self._may_dial = may_dial
        self._rows: dict[bytes, dict[Address, PeerAddress]] = {}
        self._heard: dict[bytes, tuple[tuple[Address, ...], Nearness]] = {}
        """What peers announced in the sessions that there are, and how near they were then."""
        self._started = False

    def load(self) -> None:
        """Take up what the store has, before anybody is listened to."""
        for peer, rows in self._services.store.read.addresses().items():
            self._rows[peer] = {row.address: row for row in rows}

    def start(self) -> None:
        """Keep a place for those that our operator chose, and dial whom there is something to talk about with."""
        self._started = True  # before it listened, a session would not have heard where
        for peer in self._rows:
            if self._is_chosen(peer):
                self._services.network.choose(peer)
            if self._is_wanted(peer):
                self.dial(peer)

    def of(self, peer: bytes) -> list[PeerAddress]:
        """Return the addresses of a peer, in the order in which they are tried."""
        rows = self._rows.get(peer, {}).values()
        announced = [row for row in rows if row.proven_ms is None]
        return [*reversed(proven(rows)), *sorted(announced, key=lambda row: row.since_ms, reverse=True)]

    def is_where_given(self, peer: bytes, address: Address) -> bool:
        """Whether our operator gave this address, and it is the newest at which the peer proved to be."""
        newest = proven(self._rows.get(peer, {}).values())[-1:]
        return any(row.address == address and row.given for row in newest)

    def dial(self, peer: bytes) -> None:
        """Have the network keep a session with a peer. Whom it keeps has a place, so strangers are not dialed."""
        if not (self._started and self._may_dial() and (self._is_chosen(peer) or self._has_money(peer))):
            return
        targets = [Target(row.address, row.proven_ms is not None, row.nearest) for row in self.of(peer)]
        if targets:
            self._services.network.keep_connected(peer, targets)

    # --- sessions ----------------------------------------------------------------------------------------

    def session_began(self, session: Session) -> None:
        """Say where this node can be dialed."""
        if session.hello.features & FEATURE_ADDRESSES:
            places = announced_by(self._services.config, self._services.listening)
            session.send(Addresses(tuple((place.host, place.port) for place in places)))

    def peer_goes_on(self, session: Session) -> None:
        """The peer is no life that another one has followed: if it was dialed, it proved to be there."""
        if session.dialed_at is not None:
            self.proved(session.peer, session.dialed_at)

    def session_ended(self, peer: bytes) -> None:
        """A session is over."""
        self._heard.pop(peer, None)

    def proved(self, peer: bytes, address: Address) -> None:
        """A handshake showed that a peer is at an address. One that nobody gave or announced is not kept for it."""
        row = self._rows.get(peer, {}).get(address)
        if row is not None:
            self._put_first(peer, row)

    def announced(self, session: Session, message: Addresses) -> float:
        """Take what a peer says of itself, once in a session. Returns what that counts for, in seconds."""
        if session.peer in self._heard:
            return RESUME_AGAIN_S
        near = session.nearness or Nearness.PUBLIC
        places = (Address(host, port) for host, port in message.places)
        self._heard[session.peer] = tuple(place for place in places if _may_lead(place.host, near)), near
        self._keep_heard(session.peer)
        return NO_CHANNEL_S

    # --- what changes with a peer ------------------------------------------------------------------------

    def given(self, peer: bytes, address: Address) -> None:
        """Remember where our operator said that a peer is, and it proved to be; from now on keep a connection."""
        row = PeerAddress(address, given=True, since_ms=self._now_ms(), proven_ms=None, nearest=None)
        self._put_first(peer, row)
        self._keep_heard(peer)
        self.dial(peer)

    def channel_opened(self, peer: bytes) -> None:
        """There is a channel with a peer: what it announced is worth rows."""
        self._keep_heard(peer)

    def money_came(self, peer: bytes) -> None:
        """A peer has money in a channel: it is to be found."""
        if self._is_wanted(peer):
            self.dial(peer)

    def last_channel_closed(self, peer: bytes) -> None:
        """Nothing binds us to a peer any more: where our operator said that it is stays known."""
        self._write(peer, [row for row in self._rows.get(peer, {}).values() if row.given])

    # --- inside ------------------------------------------------------------------------------------------

    def _is_chosen(self, peer: bytes) -> bool:
        return any(row.given for row in self._rows.get(peer, {}).values())

    def _keep_heard(self, peer: bytes) -> None:
        """Put what a peer announced in the place of what it announced before, and did not prove."""
        heard = self._heard.get(peer)
        if heard is None or not (self._has_channel(peer) or self._is_chosen(peer)):
            return
        places, near = heard
        rows, now_ms = self._rows.get(peer, {}), self._now_ms()
        kept = [row for row in rows.values() if row.proven_ms is not None and row.address not in places]
        for place in places:
            row = rows.get(place, PeerAddress(place, given=False, since_ms=now_ms, proven_ms=None, nearest=near))
            kept.append(row if row.given else replace(row, nearest=near))
        self._write(peer, kept)
        self._dial_anew(peer)

    def _put_first(self, peer: bytes, row: PeerAddress) -> None:
        """A handshake showed that a peer is there: it is the first to be tried from now on."""
        others = [other for other in self._rows.get(peer, {}).values() if other.address != row.address]
        now_ms, newest_ms = self._now_ms(), max((other.proven_ms or 0 for other in others), default=-1)
        is_newest = row.proven_ms is not None and row.proven_ms > newest_ms
        if is_newest and row.proven_ms is not None and now_ms - row.proven_ms < PROVEN_AGAIN_MS:
            return
        # Of two proofs the later one is newer, whatever the clock of this machine did in between.
        row = replace(row, proven_ms=max(now_ms, newest_ms + 1))
        old = [*proven(others), row]
        kept = [*old[-MOST_PROVEN:], *[other for other in old[:-MOST_PROVEN] if other.given][-1:]]
        announced = [other for other in others if other.proven_ms is None]
        self._write(peer, [*kept, *announced], [] if is_newest else [peer_part(peer, row.address)])
        self._dial_anew(peer)

    def _dial_anew(self, peer: bytes) -> None:
        if self._is_wanted(peer) or self._services.network.keeps(peer):
            self.dial(peer)

    def _write(self, peer: bytes, rows: Iterable[PeerAddress], backed_up: Iterable[bytes] = ()) -> None:
        now = {row.address: row for row in rows}
        if now == self._rows.get(peer, {}):
            return
        self._rows[peer] = now
        if not now:
            del self._rows[peer]
        self._services.store.commit(record_addresses(peer, now.values()), backed_up=list(backed_up))

    def _now_ms(self) -> int:
        return time.time_ns() // 1_000_000


def _may_lead(host: str, nearest: Nearness) -> bool:
    """Whether an announced host may be where it says; a name is looked up when it is dialed."""
    if not is_ip(host):
        return True
    nearness = nearness_of(host)
    return nearness is not None and nearness <= nearest
