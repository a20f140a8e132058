"""The control interface: JSON-RPC 2.0, one object per line, on a Unix socket of the data directory."""
