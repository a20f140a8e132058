"""`wallet.send`: a transfer from the wallet, made once, and not to where it would be lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chain.errors import ChainError, LyingReplica
from chain.principal import account_from_text, account_identifier, principal_from_text
from perund.control.errors import RpcError
from perund.control.methods import WALLET_SEND
from perund.control.schema import SendResult
from perund.control.values import E8s
from perund.node.idempotency import Idempotency, keyed
from perund.node.patience import answered, ended_within
from perund.node.transfers import FeeTooHigh, WalletTooLow
from perund.store.errors import StorageFailed
from protocol.errors import CallerMistake, PerundError
from protocol.funding import IntentStatus

if TYPE_CHECKING:
    from perund.control.schema import SendParams
    from perund.node.node import Node
    from perund.node.promises import Promise, Promises

__all__ = ["Sending", "chain_mistake"]

MANAGEMENT_CANISTER: Final = b""
ANONYMOUS: Final = b"\x04"


def chain_mistake(error: ChainError, text: str = "") -> CallerMistake:
    """Return what a caller is told whose call came to nothing because the Internet Computer could not be asked.

    `text`: in place of the error's.
    """
    name = "untrusted_answer" if isinstance(error, LyingReplica) else "chain_unreachable"
    return CallerMistake(name, text or str(error))


class Sending:
    """Sends ICP for callers."""

    def __init__(self, node: Node, keys: Idempotency, promises: Promises) -> None:
        self._node = node
        self._services = node.services
        self._keys = keys
        self._promises = promises

    async def send(self, params: SendParams) -> SendResult:
        """Carry one call out. Once its transfer is durable it is made sooner or later, whatever comes between."""
        params = keyed(params)
        what = f"the transfer of {int(params.amount_e8s)} e8s to {params.to}"
        with self._promises.of(WALLET_SEND, params.idempotency_key, what, others_decide=True) as promise:
            try:
                number = await self._planned(params, promise)
            except WalletTooLow as error:
                raise CallerMistake("insufficient_funds", str(error)) from error
            except FeeTooHigh as error:
                raise CallerMistake("fee_too_high", str(error)) from error
            except ChainError as error:
                raise chain_mistake(error) from error
            intent, why = None, "the ledger did not say whether it was made"
            try:
                async with ended_within(params.timeout_s, lambda: "the ledger has not answered yet"):
                    intent = await self._node.sends.drive(number)
            except StorageFailed:
                raise
            except RpcError:  # the caller's time is over
                self._node.sends.follow(number)
                raise
            except PerundError as error:
                why = str(error)
            if intent is None or intent.status is IntentStatus.OPEN:
                self._node.sends.follow(number)
                raise self._promises.unknown(promise, f"{what} goes on, and its end is not known yet: {why}")
        if intent.status is IntentStatus.VOID or intent.block is None:
            raise RpcError("ledger_refused", "the ledger refused the transfer; nothing was sent")
        return SendResult(block=intent.block, amount_e8s=E8s(intent.amount_e8s), fee_e8s=E8s(intent.fee_e8s))

    async def _planned(self, params: SendParams, promise: Promise) -> int:
        """Return the number of the transfer that a call asks for. It is durable, and nothing was paid for this call."""
        transfers = self._services.transfers
        async with self._keys.once(params.idempotency_key, WALLET_SEND.name, params) as earlier:
            if earlier is not None:
                promise.unit = 0
                return int(earlier)
            receiver = _receiver(params.to)
            await self._check_no_burn(receiver)
            lost = self._why_lost(receiver)
            if lost and not params.accept_loss:
                raise CallerMistake("loses_money", f"{params.to} is {lost}")
            await self._check_not_promised(int(params.amount_e8s))
            number = transfers.reserve_number()
            note = self._keys.note(params.idempotency_key, WALLET_SEND.name, params, str(number))
            await transfers.plan(
                receiver, int(params.amount_e8s), 0, None, note, number=number, asked=promise.was_asked
            )
            return number

    async def _check_no_burn(self, receiver: bytes) -> None:
        """Refuse to send to the ledger's minting account, where money is burned, and the fee is another."""
        watch = self._services.ledger_watch
        if watch is not None and watch.fee_e8s is None:
            async with answered():
                await watch.check()
        if watch is not None and receiver == watch.minting_account:
            raise CallerMistake("bad_account", f"{receiver.hex()} is the ledger's minting account: it would be burned")

    def _why_lost(self, receiver: bytes) -> str:
        """Return what an account is, for people, if sending there is pointless and cannot be undone; else nothing."""
        services = self._services
        lost = {
            services.wallet_account: "this wallet itself: nothing would move, and the fee would be spent",
            services.canister_account: "the Perun canister's account: what is sent there belongs to no channel, and "
            "nobody can get it back (`perun open` puts money into a channel)",
            account_identifier(services.ledger_principal): "the ledger's own account: nobody can send it on from there",
            account_identifier(MANAGEMENT_CANISTER): "the management canister's account: nobody can send it on",
            account_identifier(ANONYMOUS): "the account of the anonymous principal: whoever comes first takes it",
        }
        return lost.get(receiver, "")

    async def _check_not_promised(self, amount_e8s: int) -> None:
        """Refuse to send what channels that are being funded will need."""
        reserved = self._node.reserved_e8s()
        async with answered():
            balance = await self._node.refresh_balance() if reserved else 0
        if reserved and balance - reserved < amount_e8s:
            raise CallerMistake(
                "insufficient_funds",
                f"the wallet holds {balance} e8s, {reserved} of them promised to channels, not {amount_e8s} e8s more",
            )


def _receiver(text: str) -> bytes:
    """Return the account (32 bytes) that an account's text or a principal's stands for."""
    try:
        return account_from_text(text) if len(text) == 64 else account_identifier(principal_from_text(text))
    except PerundError as error:
        raise CallerMistake("bad_account", f"{text!r} is no account and no principal: {error}") from error
