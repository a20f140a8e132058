"""Mutation testing of what guards money: `python -m tests.mutants`, or `make mutants`."""
