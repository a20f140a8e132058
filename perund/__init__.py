"""The node: composition root, configuration, key store, store, control socket, command lines."""
