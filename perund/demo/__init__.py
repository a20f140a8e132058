"""`perund demo`: a devnet and two nodes as processes of their own, and what they can do."""

from perund.demo.story import run_demo

__all__ = ["run_demo"]
