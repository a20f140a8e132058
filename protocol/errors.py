"""The protocol's errors: one tree, one class for each reaction.

* `PerundError`
    * `PeerViolation`: the peer broke the protocol. Answer with its code; the last good state stands.
    * `CallerMistake`: our own user asked for something impossible now. Refuse it; nothing changes.
    * `Undecodable`: bytes that are not what they should be.

`InvariantBroken` stays outside the tree, so that no handler swallows it: it is a defect of ours.
"""

from __future__ import annotations

__all__ = ["CallerMistake", "InvariantBroken", "PeerViolation", "PerundError", "Undecodable"]


class PerundError(Exception):
    """Base of every error that perund raises on purpose."""


class PeerViolation(PerundError):
    """The peer broke the protocol.

    `code` is a stable word of docs/protocol.md; the message names the offending value.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class CallerMistake(PerundError):
    """A local command that cannot be done now.

    `code` is a stable word of docs/rpc.md; the message says what to do instead.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Undecodable(PerundError):
    """Bytes that do not decode to what was expected."""


class InvariantBroken(AssertionError):
    """A safety rule would have been broken: a defect of this program, never of its input."""
