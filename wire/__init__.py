"""Peers: the encrypted transport, the bytes of every message, sessions and the network of them.

Pure parts first: `noise` (handshake), `cipher` (frames), `codec` (messages). Then what does input and output:
`link` (one TCP connection), `greeting` (until both have said hello), `session`, `network`.
docs/protocol.md is the specification.
"""
