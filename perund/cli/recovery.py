"""`perund backup`, `perund restore` and `perund check`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from perund.cli.failing import FAILED, PARTLY, fail, run_async
from perund.cli.output import deed_done, note, say, say_json
from perund.cli.values import DIR, PASSPHRASE_FILE, SECRET, Place
from perund.passphrase import STDIN, ask_passphrase

if TYPE_CHECKING:
    from perund.recovery.checking import Finding
    from perund.recovery.restoring import Restored

__all__ = ["backup", "check", "restore"]

_JSON: Final = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.command()
@DIR
@PASSPHRASE_FILE
@_JSON
@click.option("--out", type=Place(dir_okay=False), help="Where to write the backup file.")
@click.option("--store", type=Place(dir_okay=False), help="Copy the whole store to this file.")
def backup(data_dir: Path, passphrase_file: str | None, out: Path | None, store: Path | None, *, as_json: bool) -> None:
    """Write the backup file now, or copy the whole store with --store. The node may be running.

    The node keeps `backup.perund` in its directory up to date by itself: copy that file away whenever it changes. A
    file that exists is replaced only when it is an older backup of this node; --store replaces nothing.
    """
    import msgspec

    from perund.config_file import load_config
    from perund.keystore import KeyStore
    from perund.recovery.backing_up import back_up
    from perund.recovery.copying import copy_store
    from perund.store.schema import STORE_NAME

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
    deed_done(PARTLY if done.get("left_out") else 0)
    if as_json:
        say_json(msgspec.json.encode(done))
    else:
        what = done.get("store") or done["backup"]
        by = ", as the running node keeps it" if done.get("kept_by_node") else ""
        say(f"{what} has {done['channels']} channels that are not closed{by}")
    _say_faults(done.get("ignored", ()), "ignored")
    _say_faults(done.get("left_out", ()), "left out")
    sys.exit(PARTLY if done.get("left_out") else 0)


def _say_faults(faults: object, what: str) -> None:
    assert isinstance(faults, tuple)
    for fault in faults:
        note(f"{what}: {fault}")


@click.command()
@DIR
@PASSPHRASE_FILE
@_JSON
@click.option("--backup", "backup_path", required=True, type=Place(dir_okay=False, exists=True))
@click.option(
    "--phrase-file", type=SECRET, required=True, metavar="FILE", help="File with the 24 words; - is standard input."
)
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
    import msgspec

    from perund.phrase_file import read_entropy
    from perund.recovery.restoring import restore_node

    if phrase_file == STDIN == passphrase_file:
        raise click.UsageError("Both the phrase and the passphrase from standard input: give one in a file.")

    async def work() -> Restored:
        entropy = read_entropy(phrase_file)
        passphrase = ask_passphrase(passphrase_file, twice=True, interactive=not non_interactive)
        return restore_node(data_dir, backup_path, entropy, passphrase)

    done = run_async(work, as_json=as_json)
    deed_done(PARTLY if done.faults else 0)
    if as_json:
        say_json(msgspec.json.encode(done))
    else:
        say(f"node {done.node_id} is restored, with {len(done.channels)} channels that recover")
        say(f"Start it with `perund run --dir {data_dir}`; `perun channels` shows how far each is.")
        say("The node that it was, or a copy of it, must not run any more: both would sign.")
        if done.torn:
            note("The last record of the backup is incomplete: the node stopped while it wrote it.")
        _say_faults(done.faults, "not restored")
    sys.exit(PARTLY if done.faults else 0)


@click.command()
@DIR
@_JSON
@click.option("--offline", is_flag=True, help="Do not compare with the canister.")
def check(data_dir: Path, *, as_json: bool, offline: bool) -> None:
    """Verify every signature and sum in the store again, and compare with the canister. The node may be running."""
    import msgspec

    from perund.config_file import load_config
    from perund.recovery.checking import check_channel_on_chain, check_store
    from perund.store.reading import open_reader
    from perund.store.schema import STORE_NAME

    async def work() -> tuple[int, list[Finding]]:
        path = data_dir / STORE_NAME
        if not path.exists():
            fail(f"{path} is not there", "give the data directory of a node that ran", FAILED, as_json=as_json)
        checked, findings = check_store(path)
        if offline or any(not finding.channel for finding in findings):
            return checked, findings
        from chain.agent import Agent
        from chain.identity import Anonymous
        from chain.perun import PerunCanister
        from chain.principal import principal_from_text

        config = load_config(data_dir)
        async with Agent(config.ic.urls, config.root_key, Anonymous()) as agent:
            perun = PerunCanister(agent, principal_from_text(config.ic.perun_canister))
            for row in open_reader(path).live_channels():
                findings += await check_channel_on_chain(row, perun)
        return checked, findings

    checked, findings = run_async(work, as_json=as_json)
    if as_json:
        say_json(msgspec.json.encode({"channels": checked, "findings": findings}))
    else:
        for finding in findings:
            say(f"{finding.channel[:16] or 'store'}: {finding.what}")
        say(f"{checked} channels checked, {len(findings)} findings")
    sys.exit(FAILED if findings else 0)
