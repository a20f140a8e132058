"""Modules that are loaded when something of them is used: a help page and a typo are answered without them."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

__all__ = ["lazily"]


def lazily(name: str) -> ModuleType:
    """Return a module that is executed at the first look into it."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
