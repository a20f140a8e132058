"""Words of strangers, made safe to show."""

from __future__ import annotations

__all__ = ["safe_text"]


def safe_text(text: str, limit: int = 256) -> str:
    r"""Return `text` with everything unprintable escaped, at most `limit` bytes of UTF-8.

    What a peer says ends in logs and terminals: line breaks would forge log lines, escape sequences move
    cursors, and right-to-left marks reorder what is read. Everything that a peer wrote goes through here.

    >>> safe_text("fine")
    'fine'
    >>> safe_text("two\nlines")
    'two\\nlines'
    >>> safe_text("much too long", 8)
    'much ...'
    """
    if not text.isprintable():
        text = "".join(
            c if c.isprintable() else c.encode("unicode_escape").decode("ascii")
            for c in text[: limit + 1]  # each character is at least one byte of the result
        )
    encoded = text.encode()
    if len(encoded) <= limit:
        return text
    return encoded[: limit - 3].decode(errors="ignore") + "..."
