"""Coming back: the backup file, a copy of the store, restoring, and checking what is there."""
