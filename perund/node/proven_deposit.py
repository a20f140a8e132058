"""What the ledger's blocks show of the peer's deposit, where the canister's word is not enough.

The published code has a method with which anybody credits any funding with any amount, and nothing behind it. Who
paid his own deposit on such a word, or took payments on it, would find a pool that cannot pay. So beside a published
canister the peer holds for us what it has paid: the transfers to the canister under its funding's memo.
"""

from __future__ import annotations

from chain.ledger import Block, IcpLedger, Mint, Transfer
from perund.node.ledger_scan import EARLIER_NS, find_block, first_block_since
from protocol.types import Funding, Nanos

__all__ = ["ProvenDeposit"]


class ProvenDeposit:
    """Adds up the payments for one funding. `canister_account`: 32 bytes; `opened_ns`: chain time of the opening."""

    def __init__(self, ledger: IcpLedger, funding: Funding, canister_account: bytes, opened_ns: Nanos) -> None:
        self._ledger = ledger
        self._memo = funding.memo
        self._account = canister_account
        self._opened_ns = opened_ns
        self._position: int | None = None
        self._found_e8s = 0

    async def up_to(self, held_e8s: int) -> int:
        """Return how much of what is held the ledger shows, in e8s. What was read is not read again.

        Raises `ChainError`.
        """
        if self._position is None:
            self._position = await first_block_since(self._ledger, self._opened_ns - EARLIER_NS)
        while self._found_e8s < held_e8s:
            length = (await self._ledger.chain_length()).value
            block, tip_ns = await find_block(self._ledger, self._position, self._pays)
            if block is None:
                if tip_ns:
                    self._position = max(self._position, length)
                break
            assert isinstance(block.operation, Transfer | Mint)
            self._found_e8s += block.operation.amount_e8s
            self._position = block.index + 1
        return min(held_e8s, self._found_e8s)

    def _pays(self, block: Block) -> bool:
        operation = block.operation
        return isinstance(operation, Transfer | Mint) and operation.to == self._account and block.memo == self._memo
