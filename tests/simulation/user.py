"""The user of a node: asks for things, is promised things, and asks again under the same key after a crash."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from perund.control import schema
from perund.control.errors import RpcError
from perund.control.values import E8s, PaidColumn, PaidE8s, Seconds
from protocol.errors import CallerMistake
from protocol.types import ChannelId
from tests.simulation.house import House
from tests.simulation.power import Life

__all__ = ["User", "Wish"]

AMOUNTS = (1, 7, 500, 20_000, 90_000)
SHARES = (0, 4_000, 30_000, 100_000, 250_000, 400_000)


@dataclass
class Wish:
    """One thing that a user wants. `key`: the idempotency key, None when he takes his chances."""

    kind: str
    params: schema.Params
    key: str | None
    life: Life | None = None
    """The life that was asked last, while it has not answered."""
    promised: schema.PayResult | None = None
    refused: str = ""
    answers: list[str] = field(default_factory=list)


class _Reply:
    """Where the answer to a payment goes: exactly one."""

    def __init__(self, user: User, wish: Wish) -> None:
        self._user = user
        self._wish = wish
        self._life = user.house.life
        self._answered = False

    def _once(self) -> None:
        if self._answered:
            self._user.house.rules.fail(f"{self._user.house.name}: two answers to {self._wish}")
        self._answered = True
        self._wish.life = None

    def result(self, result: schema.PayResult) -> None:
        self._once()
        self._user.answered(self._wish, result)

    def error(self, error: Exception) -> None:
        self._once()
        self._user.refused(self._wish, error)


class User:
    """Asks one node."""

    def __init__(self, house: House, rng: random.Random) -> None:
        self.house = house
        self.rng = rng
        self.wishes: list[Wish] = []

    # --- what he wants -----------------------------------------------------------------------------------

    def open(self, peer: House, challenge_s: int, funding_s: int) -> None:
        mine, theirs = self.rng.choice(SHARES[1:]), self.rng.choice(SHARES)
        if self.rng.random() < 0.1:
            mine, theirs = theirs, mine
        if not mine + theirs:
            return
        key = self._key(0.9)
        params = schema.ChannelOpenParams(
            peer.node_id.hex(),
            E8s(mine),
            E8s(theirs),
            Seconds(challenge_s),
            Seconds(funding_s),
            idempotency_key=key,
            wait=False,
        )
        self._ask(Wish("open", params, key))

    def pay(self, channel: bytes) -> None:
        """Pay once, or a list, waiting for the end or not."""
        key, rng = self._key(0.7), self.rng
        wait = rng.random() < 0.5
        reference = channel.hex()
        most = AMOUNTS[: rng.randint(1, len(AMOUNTS))]
        if rng.random() < 0.6:
            memo = "for tea" if rng.random() < 0.2 else None
            params = schema.PayParams(
                reference, amount_e8s=PaidE8s(rng.choice(most)), memo=memo, idempotency_key=key, wait=wait
            )
        else:
            amounts = [rng.choice(most) for _ in range(rng.randint(1, 12))]
            params = schema.PayParams(reference, amounts_e8s=PaidColumn(amounts), idempotency_key=key, wait=wait)
        self._ask(Wish("pay", params, key))

    def cancel(self, channel: bytes, payment_id: bytes) -> None:
        self._ask(Wish("cancel", schema.PaymentCancelParams(channel.hex(), payment_id.hex()), None))

    def close(self, channel: bytes) -> None:
        key = self._key(0.5)
        self._ask(Wish("close", schema.ChannelCloseParams(channel.hex(), wait=False, idempotency_key=key), key))

    def dispute(self, channel: bytes, *, accept_risk: bool = False) -> None:
        key = self._key(0.5)
        params = schema.ChannelDisputeParams(channel.hex(), idempotency_key=key, accept_risk=accept_risk)
        self._ask(Wish("dispute", params, key))

    def recover(self, channel: bytes) -> None:
        """Declare what the node has the newest, as far as he can see (rule 7)."""
        machine = self.house.node.drivers[ChannelId(channel)].channel
        self.house.declared.setdefault(machine.id, set()).add(machine.newest.state.allocation)
        params = schema.ChannelRecoverParams(channel.hex(), accept_version=machine.version)
        self._ask(Wish("recover", params, None))

    def ask_again(self) -> None:
        """Ask once more for something that was asked for under a key, answered or not."""
        keyed = [wish for wish in self.wishes if wish.key is not None]
        if keyed:
            self._put(self.rng.choice(keyed))

    def _key(self, likely: float) -> str | None:
        return f"{self.house.name}-{len(self.wishes)}" if self.rng.random() < likely else None

    def _ask(self, wish: Wish) -> None:
        self.wishes.append(wish)
        self._put(wish)

    def _put(self, wish: Wish) -> None:
        house = self.house
        if not house.is_up:
            return
        wish.life = house.life
        if isinstance(wish.params, schema.PayParams):
            params, reply = wish.params, _Reply(self, wish)
            house.run(lambda: self._pay(wish, params, reply))
            return
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "open": lambda: house.api.channel_open(wish.params),  # type: ignore[arg-type]  # by kind
            "close": lambda: house.api.channel_close(wish.params),  # type: ignore[arg-type]  # by kind
            "dispute": lambda: house.api.channel_dispute(wish.params),  # type: ignore[arg-type]  # by kind
            "recover": lambda: house.api.channel_recover(wish.params),  # type: ignore[arg-type]  # by kind
            "cancel": lambda: house.api.payment_cancel(wish.params),  # type: ignore[arg-type]  # by kind
        }
        house.run(lambda: house.loop.create_task(self._call(wish, calls[wish.kind])))

    def _pay(self, wish: Wish, params: schema.PayParams, reply: _Reply) -> None:
        try:
            self.house.api.channel_pay(params, reply)
        except (CallerMistake, RpcError) as error:
            reply.error(error)

    async def _call(self, wish: Wish, call: Callable[[], Awaitable[object]]) -> None:
        try:
            await call()
        except (CallerMistake, RpcError) as error:
            wish.refused = str(error)
        else:
            wish.answers.append("done")
        wish.life = None

    # --- what he hears -----------------------------------------------------------------------------------

    def answered(self, wish: Wish, result: schema.PayResult) -> None:
        earlier = wish.promised
        mine = (result.payment or result.first_payment, result.payments or 1)
        if earlier is not None and (earlier.payment or earlier.first_payment, earlier.payments or 1) != mine:
            self.house.rules.fail(f"{self.house.name}: one key, two payments: {earlier} and {result}")
        wish.promised = result
        wish.answers.append(result.status)

    def refused(self, wish: Wish, error: Exception) -> None:
        wish.refused = str(getattr(error, "name", None) or getattr(error, "code", "")) or str(error)
        wish.answers.append(wish.refused)
