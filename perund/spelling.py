"""What somebody may have meant who wrote a word that there is not."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["instead"]


def instead(wrong: str, allowed: Iterable[str]) -> str:
    """Return a hint: the nearest word, if one is near, and all that are allowed.

    >>> instead("opne", ["open", "closed"])
    'did you mean `open`? allowed: open, closed'
    """
    import difflib  # noqa: PLC0415  (only who made a mistake waits for it)

    words = list(allowed)
    close = difflib.get_close_matches(wrong, words, 1)
    guess = f"did you mean `{close[0]}`? " if close else ""
    return f"{guess}allowed: {', '.join(words)}"
