"""Watches the canister and refutes stale states, day and night."""
