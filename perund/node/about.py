"""What a node is by its configuration and its keys alone: known before its store is open."""

from __future__ import annotations

import os
from pathlib import Path

from chain.identity import Ed25519Identity
from chain.principal import account_identifier, principal_to_text
from perund.config import Config
from perund.control.schema import NodeInfo
from perund.keys import Keys
from perund.log_sink import lines_lost

__all__ = ["about"]


def about(data_dir: Path, config: Config, keys: Keys, version: str) -> NodeInfo:
    """Return who a node is while it starts: without what its store, its peers and the chain know."""
    wallet = Ed25519Identity(keys.wallet_seed).sender
    return NodeInfo(
        node_id=keys.node_id,
        version=version,
        pid=os.getpid(),
        data_dir=str(data_dir.resolve()),
        network=config.network,
        network_hash=config.network_hash.hex(),
        root_key=config.root_key.hex(),
        perun_canister=config.ic.perun_canister,
        icp_ledger=config.ic.icp_ledger,
        principal=principal_to_text(wallet),
        account=account_identifier(wallet).hex(),
        announces=[],
        channels={},
        peers=0,
        state="starting",
        log_lines_lost=lines_lost(),
    )
