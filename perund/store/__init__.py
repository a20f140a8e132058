"""What a node must not forget: SQLite in WAL mode, one writer, group commit. See docs/adr/0003."""
