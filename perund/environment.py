"""The variables of the environment that perund reads, and those with its prefix that it must not overlook.

`PERUND_DIR` names the data directory, `PERUND_PASSPHRASE` opens the key store, `PERUND_SECTION_KEY` overrides a key of
perund.toml. One that names nothing is refused: what it should protect or point to would silently be something else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from perund.setup_errors import ConfigError
from perund.spelling import instead

__all__ = ["DIR", "PASSPHRASE", "SECTIONS", "data_dir", "refuse_unknown"]

PREFIX: Final = "PERUND_"
DIR: Final = "PERUND_DIR"
PASSPHRASE: Final = "PERUND_PASSPHRASE"  # noqa: S105  (a name, no secret)
USUAL_DIR: Final = ".perund"
SECTIONS: Final = ("ic", "wire", "policy", "watch", "tower", "alarm", "fees", "close", "keys", "log")
"""The sections of perund.toml; `perund.config_file` reads them and knows their keys."""

_ORCHESTRATOR: Final = re.compile(r"PERUND_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\w+)?|NAME|ENV_\w+)")
"""What Kubernetes and Docker set in every container beside a service or a container that is called perund."""


def data_dir(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the data directory where no --dir is given: PERUND_DIR, else ~/.perund. Raises `ConfigError`."""
    refuse_unknown(environment)
    if named := environment.get(DIR):
        return Path(named)
    try:
        return Path.home() / USUAL_DIR
    except RuntimeError:
        raise ConfigError(
            f"there is no home directory for ~/{USUAL_DIR} (HOME is not set)", f"give --dir, or set {DIR}"
        ) from None


def refuse_unknown(environment: Mapping[str, str] = os.environ) -> None:
    """Raise `ConfigError` for a variable whose name begins as ours do and is none. (Of a key says `config_file`.)"""
    for variable in sorted(environment):
        if not variable.startswith(PREFIX) or variable in (DIR, PASSPHRASE) or _ORCHESTRATOR.fullmatch(variable):
            continue
        section, _, key = variable.removeprefix(PREFIX).lower().partition("_")
        if (section == "network" and not key) or (section in SECTIONS and key):
            continue
        known = (DIR, PASSPHRASE, f"{PREFIX}NETWORK", f"{PREFIX}SECTION_KEY")
        raise ConfigError(
            f"environment variable {variable} names nothing of perund",
            f"unset it, or write it right: {instead(variable, known)} (sections: {', '.join(SECTIONS)})",
        )
