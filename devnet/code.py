"""What a canister is made of: its interface file, and the hash of its source in place of a Wasm module's."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from importlib.resources.abc import Traversable

__all__ = ["interface_file", "module_hash"]


def interface_file(name: str) -> str:
    """Return the text of an interface file of this package, such as `perun.did`."""
    return files("devnet").joinpath(name).read_text(encoding="utf-8")


def module_hash(*names: str) -> bytes:
    """Return SHA-256 (32 bytes) over files and packages of the devnet, with their names: it changes with the code."""
    digest = hashlib.sha256()
    for name in names:
        _add(digest, name, files("devnet").joinpath(name))
    return digest.digest()


def _add(digest: hashlib._Hash, name: str, place: Traversable) -> None:
    if place.is_dir():
        for entry in sorted(place.iterdir(), key=lambda entry: entry.name):
            if entry.name.endswith(".py") or (entry.is_dir() and entry.name != "__pycache__"):
                _add(digest, f"{name}/{entry.name}", entry)
        return
    content = place.read_bytes()
    digest.update(f"{name}\n{len(content)}\n".encode())
    digest.update(content)
