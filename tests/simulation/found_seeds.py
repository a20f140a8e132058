"""Seeds that once showed a defect. They run in every test, for ever.

A change of the simulation changes what a seed does; then what it showed is in the list of `mutations`, as a bug that
is put back, and in a unit test beside the code.
"""

from __future__ import annotations

from typing import Final

__all__ = ["FOUND"]

FOUND: Final = (
    (37, "a loss was ended on the state before the one that the peer had, and not acknowledged yet (Orderer)"),
    (125, "two jobs of a settled channel woke themselves with every look (ChannelDriver.looked)"),
    (1180, "a final state that came back after a loss was followed by another one (StateSigner.adopted)"),
    (1014, "two restored nodes closed together a channel that was never funded: the canister refused it for ever"),
    (895, "an acceptance left after its opening had ended and was forgotten in the same write (Openings._commit)"),
    (1281, "an update left that a final state had replaced before its commit: the disk knew only the final one"),
    (47, "a proposer that lost the signature on state 0 missed the resume: both froze (Node.signed_again)"),
    (258, "a channel was closed while its deposit was being credited (SettlementJob.step)"),
    (262, "the same, found once more with a deposit below the fee"),
    (92, "a signature on state 0 left again after a crash before the backup was written (Node.load)"),
    (122, "a payout without a memo was never found by a node whose records of it were lost (SettlementJob._search)"),
    (189, "the same, asked for before the disk was lost"),
    (276, "a copy that was shown a newer life went on with a deposit that it had decided on (FundingJob._may_pay)"),
    (1149, "a copy paid a deposit before it could be told, which no record of the life that goes on shows (the same)"),
    (415, "a copy that was shown a newer life lent and withdrew beside the one that goes on (SettlementJob.step)"),
    (443, "a node restored without a channel began life 1, below those that its peers remember (restore_node)"),
    (136, "a false alarm of the simulation: a session that never began has no end"),
    (466, "a false alarm of the rules: what was lent to the canister, and told to it, is owed to nobody"),
    (2270, "a false alarm of the rules: an old signature shown again after the final one is none"),
    (2484, "a false alarm of the rules: a payment settled in one life and told in the next"),
)
