"""`perund backup`, `perund restore` and `perund check`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click
import msgspec

from perund.cli.failing import FAILED, PARTLY, fail, run_async
from perund.config_file import load_config
from perund.keystore import KeyStore
from perund.mnemonic import entropy_of
from perund.passphrase import STDIN, ask_passphrase
from perund.phrase_file import read_phrase

__all__ = ["backup", "check", "restore"]

_DIR: Final = click.option(
    "--dir", "data_dir", required=True, envvar="PERUND_DIR", type=click.Path(path_type=Path, file_okay=False),
    help="Data directory of the node.",
)  # fmt: skip
_PASSPHRASE: Final = click.option(
    "--passphrase-file", metavar="FILE", help="File whose first line opens the key store; - is standard input."
)
_JSON: Final = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.command()
@_DIR
@_PASSPHRASE
@_JSON
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Where to write the backup file.")
@click.option("--store", type=click.Path(path_type=Path, dir_okay=False), help="Copy the whole store to this file.")
def backup(data_dir: Path, passphrase_file: str | None, out: Path | None, store: Path | None, *, as_json: bool) -> None:
    """Write the backup file now, or copy the whole store with --store. The node may be running.

    The node keeps `backup.perund` in its directory up to date by itself: copy that file away whenever it changes. A
    file that exists is replaced only when it is an older backup of this node; --store replaces nothing.
    """
    from perund.node.daemon import STORE_NAME  # noqa: PLC0415  (brings the whole node along)
    from perund.recovery.backing_up import back_up  # noqa: PLC0415
    from perund.recovery.copying import copy_store  # noqa: PLC0415

    if store is not None and out is not None:
        raise click.UsageError("--out writes the backup file, --store copies the store: give one of them.")
    if store is not None and passphrase_file is not None:
        raise click.UsageError("--store copies the store as it is: it needs no --passphrase-file.")

    async def work() -> dict[str, object]:
        if store is not None:
            return {"store": str(store), "channels": copy_store(data_dir / STORE_NAME, store)}
        config = load_config(data_dir)
        keys = KeyStore(data_dir).open(ask_passphrase(passphrase_file, configured=config.keys.passphrase_file))
        made = back_up(data_dir, keys, config.network_hash, config, out)
        return {
            "backup": str(made.path),
            "channels": made.channels,
            "left_out": made.left_out,
            "ignored": made.ignored,
            "kept_by_node": made.kept_by_node,
        }

    done = run_async(work, as_json=as_json)
    if as_json:
        click.echo(msgspec.json.encode(done).decode())
    else:
        what = done.get("store") or done["backup"]
        by = ", as the running node keeps it" if done.get("kept_by_node") else ""
        click.echo(f"{what} has {done['channels']} channels that are not closed{by}")
    _say_faults(done.get("ignored", ()), "ignored")
    _say_faults(done.get("left_out", ()), "left out")
    sys.exit(PARTLY if done.get("left_out") else 0)


def _say_faults(faults: object, what: str) -> None:
    assert isinstance(faults, tuple)
    for fault in faults:
        click.echo(f"{what}: {fault}", err=True)


@click.command()
@_DIR
@_PASSPHRASE
@_JSON
@click.option("--backup", "backup_path", required=True, type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--phrase-file", required=True, metavar="FILE", help="File with the 24 words; - is standard input.")
@click.option("--non-interactive", is_flag=True, help="Never ask.")
def restore(
    data_dir: Path,
    passphrase_file: str | None,
    backup_path: Path,
    phrase_file: str,
    *,
    as_json: bool,
    non_interactive: bool,
) -> None:
    """Make a node from its 24 words and its backup file. Nothing that exists is overwritten.

    Its channels recover: the node asks peers and towers for the newest states, adopts them, and closes.
    """
    from perund.recovery.restoring import Restored, restore_node  # noqa: PLC0415

    if phrase_file == STDIN == passphrase_file:
        raise click.UsageError("Both the phrase and the passphrase from standard input: give one in a file.")

    async def work() -> Restored:
        entropy = entropy_of(read_phrase(phrase_file))
        passphrase = ask_passphrase(passphrase_file, twice=True, interactive=not non_interactive)
        return restore_node(data_dir, backup_path, entropy, passphrase)

    done = run_async(work, as_json=as_json)
    if as_json:
        click.echo(msgspec.json.encode(done).decode())
    else:
        click.echo(f"node {done.node_id} is restored, with {len(done.channels)} channels that recover")
        click.echo(f"Start it with `perund run --dir {data_dir}`; `perun channels` shows how far each is.")
        click.echo("The node that it was, or a copy of it, must not run any more: both would sign.")
        if done.torn:
            click.echo("The last record of the backup is incomplete: the node stopped while it wrote it.", err=True)
        _say_faults(done.faults, "not restored")
    sys.exit(PARTLY if done.faults else 0)


@click.command()
@_DIR
@_JSON
@click.option("--offline", is_flag=True, help="Do not compare with the canister.")
def check(data_dir: Path, *, as_json: bool, offline: bool) -> None:
    """Verify every signature and sum in the store again, and compare with the canister. The node may be running."""
    from perund.node.daemon import STORE_NAME  # noqa: PLC0415
    from perund.recovery.checking import Finding, check_channel_on_chain, check_store  # noqa: PLC0415
    from perund.store.reading import open_reader  # noqa: PLC0415

    async def work() -> tuple[int, list[Finding]]:
        path = data_dir / STORE_NAME
        if not path.exists():
            fail(f"{path} is not there", "give the data directory of a node that ran", FAILED, as_json=as_json)
        checked, findings = check_store(path)
        if offline or any(not finding.channel for finding in findings):
            return checked, findings
        from chain.agent import Agent  # noqa: PLC0415
        from chain.identity import Anonymous  # noqa: PLC0415
        from chain.perun import PerunCanister  # noqa: PLC0415
        from chain.principal import principal_from_text  # noqa: PLC0415

        config = load_config(data_dir)
        async with Agent(config.ic.urls, config.root_key, Anonymous()) as agent:
            perun = PerunCanister(agent, principal_from_text(config.ic.perun_canister))
            for row in open_reader(path).live_channels():
                findings += await check_channel_on_chain(row, perun)
        return checked, findings

    checked, findings = run_async(work, as_json=as_json)
    if as_json:
        click.echo(msgspec.json.encode({"channels": checked, "findings": findings}).decode())
    else:
        for finding in findings:
            click.echo(f"{finding.channel[:16] or 'store'}: {finding.what}")
        click.echo(f"{checked} channels checked, {len(findings)} findings")
    sys.exit(FAILED if findings else 0)
