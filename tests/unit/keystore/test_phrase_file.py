"""The 24 words as people have them: in any layout that an editor, a printer or `perund init` gives them."""

import io
import json
import sys
from pathlib import Path

import pytest

from perund.mnemonic import entropy_of
from perund.phrase_file import phrase_in, read_phrase
from perund.setup_errors import PhraseError

PHRASE = (
    "legal winner thank year wave sausage worth useful legal winner thank year "
    "wave sausage worth useful legal winner thank year wave sausage worth title"
)
WORDS = PHRASE.split()


def rows(form: str, each: int) -> str:
    """The words with their numbers, so many in a line."""
    told = [form.format(n=n, w=w) for n, w in enumerate(WORDS, 1)]
    return "\n".join(" ".join(told[start : start + each]) for start in range(0, 24, each))


def columns(form: str, high: int) -> str:
    """The same, numbered downwards."""
    told = [form.format(n=n, w=w) for n, w in enumerate(WORDS, 1)]
    return "\n".join("   ".join(told[place::high]) for place in range(high))


PRINTED = f"""The node in /tmp/alice is ready.

Write these 24 words down, on paper. They are every key of this node, they are not shown again,
and whoever has them has its money:

{rows("{n:2d} {w:<9}", 6)}

node id    02{"ab" * 32}
principal  2vxsx-fae
account    {"1" * 64}

Send ICP to the account, then: perund run --dir /tmp/alice
"""

LAYOUTS = {
    "one line": PHRASE,
    "a line end": PHRASE + "\r\n",
    "a word in each line": "\n".join(WORDS),
    "lines of Windows": "\r\n".join(WORDS),
    "of an old Mac": "\r".join(WORDS),
    "tabs and many spaces": "\t  ".join(WORDS),
    "no-break and wide spaces": "\u00a0\u3000\u2009".join(WORDS),
    "capitals": PHRASE.upper(),
    "as init prints them": rows("  {n:2d} {w:<9}", 6),
    "all that init prints": PRINTED,
    "the JSON of init": json.dumps({"node_id": "02", "phrase": PHRASE, "data_dir": "/tmp/alice"}, indent=2),
    "numbers with points": rows("{n}. {w}", 4),
    "numbers with points, joined": rows("{n}.{w}", 4),
    "numbers with brackets": rows("{n}) {w}", 1),
    "numbers with colons": rows("{n}: {w}", 3),
    "numbered downwards": columns("{n:2d} {w:<9}", 6),
    "numbered downwards in two columns": columns("{n}. {w}", 12),
    "commas": ", ".join(WORDS),
    "a byte order mark": "\ufeff" + PHRASE,
    "a byte order mark in the middle": PHRASE.replace("wave", "\ufeffwave", 1),
    "marks without width": PHRASE.replace(" ", "\u200b \u2060", 3),
    "blank lines around": f"\n\n  {PHRASE}  \n\n",
}


@pytest.mark.parametrize("text", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_any_layout_gives_the_words(text: str, tmp_path: Path) -> None:
    (tmp_path / "words").write_text(text, encoding="utf-8", newline="")
    assert entropy_of(read_phrase(str(tmp_path / "words"))) == entropy_of(PHRASE)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_editors_of_windows(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "words").write_text(rows("{n} {w}", 6), encoding=encoding)
    assert read_phrase(str(tmp_path / "words")) == PHRASE


def test_from_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(PRINTED.encode())))
    assert read_phrase("-") == PHRASE


def test_what_is_no_phrase_stays_none() -> None:
    assert phrase_in("") == ""
    assert phrase_in("{ not json") == "{ not json"
    with pytest.raises(PhraseError, match="23 words"):
        entropy_of(phrase_in("\n".join(WORDS[:-1])))
    with pytest.raises(PhraseError, match="25 words"):
        entropy_of(phrase_in(f"{PHRASE} title"))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\x80" * 10, b"word " * 20_000])
def test_an_unusable_file_is_named_and_not_repeated(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "words").write_bytes(content)
    with pytest.raises(PhraseError, match="words") as caught:
        read_phrase(str(tmp_path / "words"))
    assert "word word" not in str(caught.value)
