"""Watchtowers: the process that serves others, and what a node delivers to those of its choice."""
