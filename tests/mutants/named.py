"""Realistic faults, one piece of source each, that the closest tests have to notice: no draw decides about them.

The simulation has its own list (`tests/simulation/mutations.py`): what is caught there is not said again here.
"""

# ruff: noqa: E501  (pieces of source stand as they stand there)
from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["NAMED", "Named"]


@dataclass(frozen=True, slots=True)
class Named:
    """Replace `old`, which is once in the file, by `new`. `tests`: files or tests that notice, of which one is enough."""

    name: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...]


_U: Final = "tests/unit"

NAMED: Final = (
    Named(
        "a commit returns before it is on the disk",
        "perund/store/store.py",
        'database.pragma("synchronous", 2)',
        'database.pragma("synchronous", 1)',
        (f"{_U}/store/test_power_cut.py",),
    ),
    Named(
        "the end of a loss is signed before the towers were asked",
        "protocol/channel.py",
        "(self.awaits_towers or not self.loss_is_proven)",
        "(not self.loss_is_proven)",
        (f"{_U}/protocol/test_recalling.py",),
    ),
    Named(
        "the follower signs the end of a loss at once",
        "protocol/following.py",
        "        if self._stopped:\n            # Rule 7: signed when",
        "        if False:\n            # Rule 7: signed when",
        (f"{_U}/protocol/test_recalling.py",),
    ),
    Named(
        "a transfer is void whatever the blocks' age",
        "perund/node/transfers.py",
        "elif tip_ns > intent.last_expiry_ns:",
        "else:",
        (f"{_U}/node/test_blocks_decide.py", f"{_U}/node/test_transfers.py"),
    ),
    Named(
        "blocks that were not read to the tip pass as read",
        "perund/node/ledger_scan.py",
        "return None, tip_ns if seen >= page.value.chain_length else 0",
        "return None, tip_ns",
        (f"{_U}/node/test_blocks_decide.py",),
    ),
    Named(
        "a stranger's e8 ends the search for a lost deposit",
        "perund/node/funding_job.py",
        "if funded or held_e8s >= terms.allocation[terms.our_index]:",
        "if funded or held_e8s > 0:",
        (f"{_U}/node/test_blocks_decide.py", f"{_U}/node/test_lost_deposits.py"),
    ),
    Named(
        "a stranger's transfer is taken for the lost deposit",
        "perund/node/lost_deposits.py",
        "(operation.from_, operation.to) == (self._transfers.account, self._receiver)",
        "operation.to == self._receiver",
        (f"{_U}/node/test_blocks_decide.py", f"{_U}/node/test_lost_deposits.py"),
    ),
    Named(
        "another channel's deposit is taken for the lost one",
        "perund/node/lost_deposits.py",
        "and block.memo == memo\n",
        "\n",
        (f"{_U}/node/test_blocks_decide.py", f"{_U}/node/test_lost_deposits.py"),
    ),
    Named(
        "another channel's payout is taken for this one's",
        "perund/node/settlement_job.py",
        "and (block.memo == memo or (block.memo == 0 and operation.amount_e8s == paid_e8s))",
        "",
        (f"{_U}/node/test_blocks_decide.py", f"{_U}/node/test_settlement_job.py"),
    ),
    Named(
        "any transfer of the amount is taken for ours",
        "perund/node/transfers.py",
        "and (operation.amount_e8s, block.memo) == (intent.amount_e8s, intent.memo)",
        "and operation.amount_e8s == intent.amount_e8s",
        (f"{_U}/node/test_blocks_decide.py", f"{_U}/node/test_transfers.py"),
    ),
    Named(
        "a channel ends with a deposit in flight",
        "perund/node/settlement_job.py",
        "if not self._deposits_settled():\n",
        "if False:\n",
        (f"{_U}/node/test_blocks_decide.py", f"{_U}/node/test_funding_job.py"),
    ),
    Named(
        "what is in flight is not held by anybody",
        "perund/node/settlement_job.py",
        "sum(self.holdings) > 0 or not deposits_settled,",
        "sum(self.holdings) > 0,",
        (f"{_U}/node/test_blocks_decide.py", f"{_U}/node/test_funding_job.py"),
    ),
    Named(
        "a state refutes before it is durable",
        "perund/node/driver.py",
        "        if step.durable or records or self._unwritten:\n",
        "        self.durable_newest = self.channel.newest\n        if step.durable or records or self._unwritten:\n",
        (f"{_U}/node/test_durable_states.py",),
    ),
    Named(
        "the watcher is given a state before it is durable",
        "perund/node/node.py",
        "return (driver.channel.terms.params, driver.durable_newest)",
        "return (driver.channel.terms.params, driver.channel.newest)",
        (f"{_U}/node/test_durable_states.py",),
    ),
    Named(
        "a tower is given a state before it is durable",
        "perund/tower/towers.py",
        "return (driver.channel.terms.params, driver.durable_newest)",
        "return (driver.channel.terms.params, driver.channel.newest)",
        (f"{_U}/node/test_durable_states.py",),
    ),
    Named(
        "a dispute begins with a state before it is durable",
        "perund/node/settlement_job.py",
        "newest=self.driver.durable_newest,",
        "newest=channel.newest,",
        (f"{_U}/node/test_durable_states.py",),
    ),
    Named(
        "a late look of the watcher that shows a registration is dropped",
        "watcher/looking.py",
        "look.asked_ns < entry.learned_ns and _less(shown, known):",
        "look.asked_ns < entry.learned_ns:",
        (f"{_U}/watcher/test_late_answers.py", f"{_U}/watcher/test_looking.py"),
    ),
    Named(
        "a late look of a channel that shows a registration is dropped",
        "protocol/channel.py",
        "if not look.shows_more_than(self.look):",
        "if True:",
        (f"{_U}/protocol/test_looking.py", f"{_U}/protocol/test_horizon.py"),
    ),
    Named(
        "a look that shows less takes back what was learned",
        "watcher/looking.py",
        "if known is not None and look.asked_ns < entry.learned_ns and _less(shown, known):",
        "if False:",
        (f"{_U}/watcher/test_late_answers.py", f"{_U}/watcher/test_looking.py"),
    ),
    Named(
        "a log that starts anew is not noticed",
        "watcher/sweep.py",
        "if page.head < self.cursor:",
        "if False:",
        (f"{_U}/watcher/test_late_answers.py", f"{_U}/watcher/test_sweeping.py"),
    ),
    Named(
        "a log that starts anew is read on where it was",
        "watcher/sweep.py",
        "self.cursor, first = 0, None",
        "self.cursor, first = page.head, None",
        (f"{_U}/watcher/test_late_answers.py", f"{_U}/watcher/test_sweeping.py"),
    ),
    Named(
        "the horizon is as young as the last page",
        "watcher/sweep.py",
        "first = first or page",
        "first = page",
        (f"{_U}/watcher/test_late_answers.py", f"{_U}/watcher/test_sweeping.py"),
    ),
    Named(
        "a place among the refutations that is given at the moment of a cancellation is lost",
        "watcher/refuting.py",
        "if turn.done() and not turn.cancelled():\n                    self._give_back()",
        "if False:\n                    self._give_back()",
        (f"{_U}/watcher/test_late_answers.py", f"{_U}/watcher/test_urgency.py"),
    ),
    Named(
        "a refutation that is cancelled keeps its place",
        "watcher/refuting.py",
        "        try:\n            yield\n        finally:\n            self._give_back()",
        "        yield\n        self._give_back()",
        (f"{_U}/watcher/test_late_answers.py", f"{_U}/watcher/test_urgency.py"),
    ),
    Named(
        "a place is given to somebody who has gone",
        "watcher/refuting.py",
        "            if not turn.done():\n                turn.set_result(None)\n                return",
        "            if not turn.done():\n                turn.set_result(None)\n            return",
        (f"{_U}/watcher/test_late_answers.py", f"{_U}/watcher/test_urgency.py"),
    ),
    Named(
        "only the last shard of canister ranges counts",
        "chain/certificate.py",
        "if start <= canister:",
        "if True:",
        (f"{_U}/chain/test_whose_certificate.py", f"{_U}/chain/test_vectors_certificates.py"),
    ),
    Named(
        "only the first shard of canister ranges counts",
        "chain/certificate.py",
        "                leaf = shard.lookup(())\n",
        "                leaf = shard.lookup(())\n                break\n",
        (f"{_U}/chain/test_whose_certificate.py", f"{_U}/chain/test_vectors_certificates.py"),
    ),
    Named(
        "a delegation is kept for whichever subnet",
        "chain/certificate.py",
        "name = sha256(subnet_id + encoded).digest()",
        "name = sha256(encoded).digest()",
        (f"{_U}/chain/test_whose_certificate.py", f"{_U}/chain/test_vectors_certificates.py"),
    ),
    Named(
        "the keys of nodes are kept for whichever canister",
        "chain/node_keys.py",
        "known = self._known.get(canister)",
        "known = next(iter(self._known.values()), None)",
        (f"{_U}/chain/test_whose_certificate.py", f"{_U}/chain/test_queries.py"),
    ),
    Named(
        "a subnet vouches for a canister that it does not host",
        "chain/node_keys.py",
        "if not certificate.hosts(canister):",
        "if False:",
        (f"{_U}/chain/test_whose_certificate.py", f"{_U}/chain/test_queries.py"),
    ),
    Named(
        "whom the root subnet hosts is kept for whichever canister",
        "chain/state_reader.py",
        "known_at = self._hosted_by_root.get(canister)",
        "known_at = next(iter(self._hosted_by_root.values()), None)",
        (f"{_U}/chain/test_whose_certificate.py", f"{_U}/chain/test_queries.py", f"{_U}/chain/test_agent_calls.py"),
    ),
    Named(
        "a call has expired at the very moment at which it may be executed still",
        "chain/submission.py",
        "if 0 < late_ns <= ANSWERS_KEPT_NS",
        "if 0 <= late_ns <= ANSWERS_KEPT_NS",
        (f"{_U}/chain/test_whose_certificate.py",),
    ),
    Named(
        "what the root subnet hosts is believed for ever",
        "chain/state_reader.py",
        "if known_at is not None and self.clock.monotonic_ns() - known_at < HOSTING_TTL_NS:",
        "if known_at is not None:",
        (f"{_U}/chain/test_whose_certificate.py",),
    ),
    Named(
        "a canister that moved away is the root subnet's still",
        "chain/state_reader.py",
        "            self._hosted_by_root.pop(canister, None)\n            return",
        "            return",
        (f"{_U}/chain/test_whose_certificate.py",),
    ),
    Named(
        "an old certificate of a subnet shows the keys of its nodes",
        "chain/state_reader.py",
        "        if certificate.time_ns < asked_ns - MAX_AGE_NS:\n",
        "        if False:\n",
        (f"{_U}/chain/test_whose_certificate.py",),
    ),
    Named(
        "an old certificate shows what the root subnet hosts",
        "chain/state_reader.py",
        " or shown.time_ns < asked_ns - MAX_AGE_NS:",
        ":",
        (f"{_U}/chain/test_whose_certificate.py",),
    ),
    Named(
        "one subnet answers for another",
        "chain/certificate.py",
        "if signer != subnet_id:",
        "if False:",
        (f"{_U}/chain/test_whose_certificate.py",),
    ),
    Named(
        "an opening is told of before the backup file has it",
        "perund/store/writer.py",
        "                self._write(units, self._may_be_to + len(units))\n                self._back_up([part for unit in units for part in unit.backed_up])\n",
        "                self._write(units, self._may_be_to + len(units))\n                self._tell(partial(self._call_all, [u.then for u in units if u.then]))\n                self._back_up([part for unit in units for part in unit.backed_up])\n",
        (f"{_U}/store/test_power_cut.py",),
    ),
    Named(
        "every look asks every server",
        "watcher/looking.py",
        "everywhere: bool = False",
        "everywhere: bool = True",
        (f"{_U}/watcher/test_late_answers.py",),
    ),
    Named(
        "what was lent before does not count",
        "perund/node/payout_pool.py",
        "if lent + missing_e8s > most or",
        "if missing_e8s > most or",
        (f"{_U}/node/test_published.py",),
    ),
    Named(
        "one block stands for two withdrawals",
        "perund/node/settlement_job.py",
        "                and block.index not in self._store.blocks\n",
        "",
        (f"{_U}/node/test_blocks_decide.py",),
    ),
    Named(
        "a payout to somebody else is taken for ours",
        "perund/node/settlement_job.py",
        "if not isinstance(operation, Transfer) or operation.to != self._wallet_account:",
        "if not isinstance(operation, Transfer):",
        (f"{_U}/node/test_blocks_decide.py",),
    ),
    Named(
        "what went elsewhere is money behind the peer's deposit",
        "perund/node/proven_deposit.py",
        "operation.to == self._account and ",
        "",
        (f"{_U}/node/test_published.py",),
    ),
)
