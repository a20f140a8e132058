"""The command lines: `perund` runs a node, `perun` talks to it."""
