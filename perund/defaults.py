"""What is taken where nobody said anything. Light: the command lines show it in their help."""

from __future__ import annotations

from typing import Final

__all__ = ["CANISTER_OF_ICP_LEDGER", "DEFAULT_IC_URL"]

DEFAULT_IC_URL: Final = "https://icp-api.io"
CANISTER_OF_ICP_LEDGER: Final = "ryjl3-tyaaa-aaaaa-aaaba-cai"
