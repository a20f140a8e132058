"""Reads and writes `perund.toml`, with environment variables on top of it.

`PERUND_SECTION_KEY` overrides a key (`PERUND_WIRE_LISTEN`, `PERUND_NETWORK`); lists are separated by commas.
Every error names the file and line, or the variable, and what is allowed there.
"""

from __future__ import annotations

import codecs
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints

import msgspec

from perund import config as schema
from perund.amounts import parse_config_amount
from perund.config import FILE_NAME, Config, default_min_challenge_s
from perund.environment import refuse_unknown
from perund.private_file import write_new
from perund.setup_errors import ConfigError
from perund.spelling import instead
from protocol.errors import CallerMistake

__all__ = ["Wrong", "explained", "load_config", "render_config", "write_config"]

MAX_FILE_BYTES: Final = 16 * 1024 * 1024
"""More than the longest lists that the bounds of the keys allow: what is written is also read."""
MAX_DIGITS: Final = 20
MAX_SHOWN: Final = 100
MAX_DOTS: Final = 64
"""In one line, outside of texts. A dotted key costs tomllib time that grows with the square of its parts."""
_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_TEXT: Final = re.compile(r'"(?:[^"\\]|\\.)*"|\'[^\']*\'')
_SECTIONS: Final[dict[str, type[msgspec.Struct]]] = {
    "ic": schema.Ic,
    "wire": schema.Wire,
    "policy": schema.Policy,
    "watch": schema.Watch,
    "tower": schema.Tower,
    "alarm": schema.Alarm,
    "fees": schema.Fees,
    "close": schema.Close,
    "keys": schema.Keys,
    "log": schema.Log,
}
_TOP: Final = ("network",)
_PATH: Final = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<path>[^`]*)`)?$", re.DOTALL)


def load_config(data_dir: Path, environment: Mapping[str, str] = os.environ) -> Config:
    """Read the configuration of a data directory. Raises `ConfigError`."""
    path = data_dir / FILE_NAME
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"there is no {path}", _without(path)) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})", "run perund as the user who made it") from error
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_FILE_BYTES} bytes", "it is not a configuration of perund")
    return _Reading(path, content, environment).config()


def _without(path: Path) -> str:
    """What to do in a directory without a configuration: never a new node where one lives."""
    there = [name for name in ("keystore.json", "perund.db", "tower.db") if (path.parent / name).exists()]
    if there:
        return (
            f"a node lives here ({there[0]} is there): put the file back, or write it with the network, root key, "
            "canister and ledger that it had; a new node would not know its channels"
        )
    return "give the right --dir, and see that its disk is mounted; a new node is made with `perund init`"


def write_config(data_dir: Path, config: Config) -> None:
    """Write the file of a new node, with every key explained. Raises `DirectoryError` when there is one."""
    write_new(data_dir / FILE_NAME, render_config(config).encode())


def render_config(config: Config) -> str:
    """Return the text of `perund.toml` for a configuration: every key, with its description."""
    lines = [
        "# Configuration of a perund node. A key that is left out has the value shown by `perund init`.",
        "# Environment variables override it: PERUND_SECTION_KEY, for example PERUND_WIRE_LISTEN.",
        "",
        *_comment(Config, "network"),
        f"network = {_toml(config.network)}",
    ]
    for name, section in _SECTIONS.items():
        values = getattr(config, name)
        lines += ["", f"[{name}]", f"# {section.__doc__}"]
        for key in section.__struct_fields__:
            lines += ["", *_comment(section, key), f"{key} = {_toml(getattr(values, key))}"]
    return "\n".join(lines) + "\n"


def _comment(section: type[msgspec.Struct], key: str) -> list[str]:
    return [f"# {line}" for line in _description(section, key).splitlines()]


def _toml(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return _toml_text(value)
        case tuple():
            return f"[{', '.join(_toml(item) for item in value)}]"
        case _:
            raise TypeError(f"no TOML for {type(value).__name__}")


def _toml_text(value: str) -> str:
    """Return a TOML basic string. (A JSON text is none: it has surrogates for what is beyond 16 bits.)"""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{value!a} is not text", "use characters of UTF-8") from None
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c >= " " and c != "\x7f" else f"\\u{ord(c):04x}" for c in escaped) + '"'


@cache
def _hints(section: type[msgspec.Struct]) -> dict[str, Any]:
    return get_type_hints(section, include_extras=True)


def _description(section: type[msgspec.Struct], key: str) -> str:
    hint = _hints(section)[key]
    metadata = getattr(hint, "__metadata__", ())  # a section where a value was expected has none
    return next((meta.description for meta in metadata if meta.description), "")


def _kind(section: type[msgspec.Struct], key: str) -> object:
    """Return the type of a key, without its bounds."""
    hint = _hints(section)[key]
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


class _Reading:
    """One reading of one file, with what it needs to say where a wrong value comes from."""

    def __init__(self, path: Path, content: bytes, environment: Mapping[str, str]) -> None:
        self.path = path
        self.environment = environment
        try:
            self.text = content.decode("utf-16" if content.startswith(_UTF_16) else "utf-8-sig")
            _refuse_long_keys(path, self.text)
            self.tables: dict[str, object] = tomllib.loads(self.text)
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path} is not UTF-8 text (byte {error.start})", "save it as UTF-8") from None
        except ValueError as error:  # TOMLDecodeError, or Python's own for a number of thousands of digits
            raise ConfigError(f"{path} is not TOML: {error}", "see https://toml.io for its syntax") from None
        except RecursionError:
            raise ConfigError(f"{path} nests thousands of brackets", "it is not a configuration of perund") from None
        self.overridden: dict[tuple[str, str], str] = {}

    def config(self) -> Config:
        self._refuse_unknown_keys()
        self._take_environment()
        self._read_amounts()
        policy = self.tables.setdefault("policy", {})
        if isinstance(policy, dict):
            network = self.tables.get("network")
            policy.setdefault("min_challenge_s", default_min_challenge_s(network if isinstance(network, str) else ""))
        try:
            return msgspec.convert(self.tables, Config)
        except msgspec.ValidationError as error:
            raise self._explain(str(error)) from None

    def _refuse_unknown_keys(self) -> None:
        known = [*_TOP, *_SECTIONS]
        for name, table in self.tables.items():
            if name not in known:
                raise ConfigError(f"{self._where('', name)}: there is no `{name}`", instead(name, known))
            if name in _SECTIONS and isinstance(table, dict):
                fields = _SECTIONS[name].__struct_fields__
                for key in table:
                    if key not in fields:
                        raise ConfigError(
                            f"{self._where(name, key)}: there is no `{key}` in [{name}]", instead(key, fields)
                        )

    def _take_environment(self) -> None:
        """Lay variables over the file. A misspelt one is refused: it would silently not protect what it should."""
        refuse_unknown(self.environment)
        for variable, text in sorted(self.environment.items()):
            section, _, key = variable.removeprefix("PERUND_").lower().partition("_")
            if variable.startswith("PERUND_") and (section in _TOP or section in _SECTIONS):
                _toml_text(text)  # what cannot be written could not be backed up either
            if not variable.startswith("PERUND_"):
                continue
            if section in _TOP and not key:
                self.tables[section] = text
                self.overridden["", section] = variable
            elif section in _SECTIONS:
                struct = _SECTIONS[section]
                if key not in struct.__struct_fields__:
                    raise ConfigError(
                        f"environment variable {variable}: there is no `{key}` in [{section}]",
                        instead(key, struct.__struct_fields__),
                    )
                self.overridden[section, key] = variable
                table = self.tables.setdefault(section, {})
                if isinstance(table, dict):
                    table[key] = self._from_text(struct, section, key, text)

    def _from_text(self, struct: type[msgspec.Struct], section: str, key: str, text: str) -> object:
        kind = _kind(struct, key)
        if get_origin(kind) is tuple:
            return [item.strip() for item in text.split(",") if item.strip()]
        if kind is bool:
            if text not in {"true", "false"}:
                raise ConfigError(f"{self._where(section, key)}: {text!a} is not allowed", "write true or false")
            return text == "true"
        if kind is int and not key.endswith("_e8s"):
            if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
                raise ConfigError(
                    f"{self._where(section, key)}: {text!a} is not a whole number",
                    f"allowed: {_description(struct, key)}",
                )
            return int(text)
        return text

    def _read_amounts(self) -> None:
        for section, table in self.tables.items():
            if section not in _SECTIONS or not isinstance(table, dict):
                continue
            for key, value in table.items():
                if key.endswith("_e8s") and isinstance(value, int | str) and not isinstance(value, bool):
                    try:
                        table[key] = parse_config_amount(value)
                    except CallerMistake as error:
                        raise ConfigError(
                            f"{self._where(section, key)}: {error}", f"allowed: {_description(_SECTIONS[section], key)}"
                        ) from None

    def _explain(self, message: str) -> ConfigError:
        wrong = explained(message, self.tables)
        if wrong.key in _SECTIONS and not wrong.section:
            return ConfigError(f"{self.path}: the section [{wrong.key}] {wrong.what}", "write it as `perund init` does")
        return ConfigError(f"{self._where(wrong.section, wrong.key)}: {wrong.what}", f"allowed: {wrong.allowed}")

    def _where(self, section: str, key: str) -> str:
        name = f"{section}.{key}" if section else key
        if variable := self.overridden.get((section, key)):
            return f"environment variable {variable} ({name})"
        line = self._line_of(section, key)
        return f"{self.path}, line {line}: {name}" if line else f"{self.path}: {name}"

    def _line_of(self, section: str, key: str) -> int | None:
        inside = ""
        begins = None
        for number, raw in enumerate(self.text.splitlines(), start=1):
            line = raw.strip()
            if header := re.match(r"\[\s*([\w-]+)\s*\]", line):
                inside = header[1]
                begins = number if inside == section or (not section and inside == key) else begins
            elif inside == section and re.match(rf"[\"']?{re.escape(key)}[\"']?\s*[=.]", line):
                return number
        return begins


@dataclass(frozen=True, slots=True)
class Wrong:
    """What is wrong with a value of a configuration: where it is, and what is allowed there."""

    section: str
    key: str
    what: str
    allowed: str


def explained(message: str, tables: Mapping[str, object]) -> Wrong:
    """Say what the schema refused, instead of a type, a pattern and a path into a document that nobody sees."""
    found = _PATH.match(message)
    what, path = (found["what"], found["path"] or "") if found else (message, "")
    section, _, key = path.removeprefix(".").partition(".")
    key = key.partition("[")[0]
    missing = re.fullmatch(r"Object missing required field `(\w+)`", what)
    if missing:
        section, key = (section, missing[1]) if section else ("", missing[1])
    named = re.match(r"`(?:(\w+)\.)?(\w+)`", what)
    if named and not key:
        section, key = named[1] or section, named[2]
    if section in _TOP or (section and not key):
        section, key = "", section
    if missing:
        what = "is missing" if key in _SECTIONS and not section else "the key is missing"
    elif not named:
        what = f"{_value(tables, section, key)} is not allowed"
    struct = _SECTIONS.get(section, Config)
    allowed = _description(struct, key) if key in struct.__struct_fields__ else f"a table [{section}]"
    return Wrong(section, key, what, " ".join(allowed.split()))


def _value(tables: Mapping[str, object], section: str, key: str) -> str:
    table = tables.get(section) if section else tables
    value = table.get(key) if isinstance(table, Mapping) else table
    try:
        text = ascii(list(value) if isinstance(value, tuple) else value)
    except ValueError:  # Python writes no number of more than some thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def _refuse_long_keys(path: Path, text: str) -> None:
    for number, line in enumerate(text.splitlines(), start=1):
        if (
            line.count(".") > MAX_DOTS
            and _TEXT.sub("", line).count(".") > MAX_DOTS
            and not line.lstrip().startswith("#")
        ):
            raise ConfigError(f"{path}, line {number} has more than {MAX_DOTS} dots", "keys have one at most")
