"""The events of `event.subscribe`: every kind there is, with what it says. Docs and command lines use this list."""

from __future__ import annotations

from typing import Final

__all__ = ["EVENTS"]

EVENTS: Final = {
    # A channel, from its opening to its end.
    "opening.ended": "An opening of ours came to nothing: `code`, `text`.",
    "channel.signed": "State 0 is signed by both: a channel exists, and is being funded. `mine_e8s`, `theirs_e8s`.",
    "channel.depositing": "Our deposit is on its way. `amount_e8s`.",
    "channel.deposited": "Our deposit is in the canister. `amount_e8s`, `block`.",
    "channel.deposit_found": "A deposit from before a loss of data was found on the ledger, and credited.",
    "channel.paid_by_others": "Money came into our side of the channel that this node did not send. `amount_e8s`.",
    "channel.open": "Both sides have paid in: payments flow. `version`.",
    "channel.updated": "A state counts: `version`, `mine_e8s`, `theirs_e8s`, `change_e8s`, and its payments.",
    "channel.acknowledged_late": "A state became fully signed when another one was registered: it may not count.",
    "channel.frozen": "The peer broke the protocol, or data is lost: nothing more is signed. `code`, `text`. Alarm.",
    "channel.closing": "A final state is asked for or signed, to close together. `reason`, `version`.",
    "channel.leaving": "The channel ends alone: a state is, or is to be, registered. `reason`, `version`.",
    "channel.withdrawing": "What is ours is being taken out. `holdings_e8s`.",
    "channel.withdrawn": "It arrived in the wallet. `received_e8s`, `block`.",
    "channel.closed": "The channel is settled, and what is ours is out. `reason`, `version`.",
    # What the watcher sees.
    "channel.refuting": "A state below ours is registered, and is refuted now. `registered`, `ours`. Alarm.",
    "channel.refuted": "Our state is the registered one. `version`.",
    "channel.conflicting_state_registered": "Another state of our version is registered. Alarm.",
    "channel.newer_state_registered": "A state is registered that this node does not have: its data is old. Alarm.",
    "channel.settled_below_ours": "The canister settled on a state below ours. `registered`, `ours`. Alarm.",
    "watcher.margin_half": "Half of the challenge period is left to refute. Alarm.",
    "watcher.margin_quarter": "A quarter of the challenge period is left to refute. Alarm.",
    "watcher.blind": "No certified answer has come for too long. `channels`, `lag_s`. Alarm.",
    "watcher.sees": "Certified answers come again.",
    "watcher.refuting_unproven": "A state below ours is shown without a certificate, and is refuted. Alarm.",
    "watcher.unproven_over": "That is over. `proven`: whether a certificate showed it.",
    "watcher.restarted": "A part of the watcher failed, and was started again. `part`, `error`. Alarm.",
    # What a peer or a watchtower says.
    "peer.complained": "A peer says that we broke the protocol. `code`, `text`.",
    "channel.replayed_payment": "The peer sent the id of a payment that was made before. `payment`.",
    "channel.peer_claims_newer": "The peer says that it holds a newer state, and has not shown it. Alarm.",
    "channel.peer_is_behind": "The peer has an older state than it signed: it lost data. `theirs`, `ours`.",
    "tower.claims_newer": "A watchtower says that it holds a newer state, and is asked for it. Alarm.",
    "tower.conflict": "A watchtower holds another state of this version. Alarm.",
    "tower.forgot": "A watchtower lost states that it had promised to hold; it has them again. Alarm.",
    "tower.dropped": "A watchtower does not guard this node any more. `reason`. Alarm.",
    # A loss of data, and its end.
    "channel.adopted": "A newer state signed by us came from outside, and was taken: this node had lost it.",
    "channel.declared_newest": "The operator ended a loss on this version (`channel.recover`).",
    "node.store_is_old": "The store is older than the backup file: it takes up what it lacks, and recovers. Alarm.",
    "node.store_in_doubt": "Files of the store were replaced or cut off: what may be lost recovers. Alarm.",
    "node.stopped_signing": "A newer copy of this node runs: this one signs nothing any more. Alarm.",
    "node.older_life": "An older copy of this node ran beside it, and has stopped. Alarm.",
    "backup.unreadable": "The backup file does not read back as it was written; it is written anew. Alarm.",
    "backup.readable": "The backup file is good again. `path`.",
    # The canister.
    "canister.code_changed": "The canister has other code or controllers: nothing is opened on it unless it is listed.",
    "canister.installed_again": "The same code was installed again: channels may have been rolled back. Alarm.",
    "canister.fee_sent": "What the canister's account lacks for a payout was lent to it. `amount_e8s`.",
}
