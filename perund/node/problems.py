"""Since when each problem lasts: kept across restarts, and forgotten when it has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perund.store.jobs import forget_problem, record_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from perund.store.store import Store
    from perund.store.writer import Statement

__all__ = ["Problems"]

NS: Final = 1_000_000_000
GRACE_NS: Final = 300 * NS
"""After a start: so long a problem of the life before may take to show again, as one with a failing step does."""


class Problems:
    """Problems by code and subject: a channel, a peer or a tower in hex, or nothing for the node itself.

    Times of problems are nanoseconds since 1970 of the machine's clock, for people.
    """

    def __init__(self, store: Store, elapsed_ns: Callable[[], int]) -> None:
        """`elapsed_ns`: a clock that does not step."""
        self._store = store
        self._elapsed_ns = elapsed_ns
        self._since = store.read.problems()
        self._unseen = set(self._since)
        """Those of the life before that did not show again yet."""
        self._began_ns = elapsed_ns()

    def since(self, code: str, subject: str) -> int | None:
        """Return since when a problem is known, or None."""
        return self._since.get((code, subject))

    async def settle(self, found: Mapping[tuple[str, str], int]) -> None:
        """Take what is a problem now, with since when; what is none any more is forgotten. Both are durable then.

        Raises `StorageFailed`.
        """
        news: list[Statement] = []
        for key, since_ns in found.items():
            self._unseen.discard(key)
            if self._since.get(key) != since_ns:
                self._since[key] = since_ns
                news.append(record_problem(*key, since_ns))
        patient = self._elapsed_ns() - self._began_ns < GRACE_NS
        for key in [key for key in self._since if key not in found and not (patient and key in self._unseen)]:
            del self._since[key]
            self._unseen.discard(key)
            news.append(forget_problem(*key))
        if news:
            await self._store.write(news)
