"""What is fuzzed: a parser, the errors that it may answer with, and inputs to begin with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.fuzz.mutation import Tree, mutations

__all__ = ["Target", "as_text"]


def _bytes_only(tree: Tree) -> bytes:
    raise TypeError(f"a target with trees needs an encoder for {type(tree).__name__}")


@dataclass(frozen=True)
class Target:
    """One parser of bytes from outside.

    `parse`: takes an input, raises nothing but `errors`; `corpus`: inputs that it accepts; `trees`: values whose
    encoding by `encode` it accepts; `tokens`: pieces of the format that random bytes would hardly hit; `close`: to be
    called at the end.
    """

    parse: Callable[[bytes], object]
    errors: tuple[type[Exception], ...]
    corpus: tuple[bytes, ...]
    trees: tuple[Tree, ...] = ()
    encode: Callable[[Tree], bytes] = _bytes_only
    tokens: tuple[bytes, ...] = ()
    close: Callable[[], object] = lambda: None

    def seeds(self) -> tuple[bytes, ...]:
        """Return everything that it accepts."""
        return self.corpus + tuple(self.encode(tree) for tree in self.trees)

    def inputs(self, seed: int) -> Iterator[bytes]:
        """Yield changed inputs without end: always the same for one seed."""
        return mutations(seed, self.seeds(), self.trees, self.encode, self.tokens)


def as_text(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    """Return a parser of bytes for one of text. Bytes that are no UTF-8 become single characters: nothing is lost."""

    def parse_bytes(data: bytes) -> object:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = data.decode("latin-1")
        return parse(text)

    return parse_bytes
