"""Watching beside the node: alarms that reach somebody, and `perund watch`, a process of its own."""
