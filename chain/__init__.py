"""The Internet Computer: an agent that believes only what is certified, the Perun canister, the ICP ledger."""
