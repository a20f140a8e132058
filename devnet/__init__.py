"""A local Internet Computer with the Perun canister and the ICP ledger, for tests and demos."""
