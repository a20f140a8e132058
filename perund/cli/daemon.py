"""`perund`: makes and runs a node, and the devnet."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from perund.cli import keys as keys_commands
from perund.cli import recovery
from perund.cli.failing import FAILED, fail, run_async
from perund.cli.output import deed_done, say, say_json
from perund.cli.program import Program
from perund.cli.values import DIR, PASSPHRASE_FILE, SECRET, Amount, Host, Place, Word
from perund.defaults import CANISTER_OF_ICP_LEDGER, DEFAULT_IC_URL
from perund.passphrase import STDIN, ask_passphrase
from perund.setup_errors import ConfigError

if TYPE_CHECKING:
    import asyncio

    from devnet.server import Ready
    from perund.new_node import NewNode
    from perund.tower.books import Status
    from wire.address import NodeAddress

__all__ = ["main"]

FROM_WORDS: Final = (
    "This node has the keys and the wallet of these words, and no channel: one that they had before is not watched "
    "from here. If there was any, stop now, and make the node with `perund restore` from its backup.perund."
)

_OPTIONS: Final = {
    "ic.urls": "--url",
    "ic.perun_canister": "--canister",
    "ic.icp_ledger": "--ledger",
    "ic.root_key": "--root-key",
    "ic.module_hashes": "--module-hash",
    "wire.listen": "--listen",
    "policy.contribute_max_e8s": "--contribute-max",
}
"""Which option of `init` says what a key of perund.toml will."""


@click.group("perund", cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="perund")
def main() -> None:
    """Run a payment-channel node for the Internet Computer."""


@main.command()
@DIR
@click.option(
    "--network", type=Word("network", ["local", "ic"]), metavar="[local|ic]", required=True,
    help="A devnet, or the real one.",
)  # fmt: skip
@click.option("--url", "urls", multiple=True, help=f"Address of the network. On ic by default {DEFAULT_IC_URL}.")
@click.option("--canister", required=True, help="Principal of the Perun canister.")
@click.option("--ledger", default=CANISTER_OF_ICP_LEDGER, show_default=True, help="Principal of the ICP ledger.")
@click.option("--listen", default="127.0.0.1:9735", show_default=True, help="host:port for peers; empty: only dial.")
@click.option("--root-key", default="", metavar="HEX", help="Root key of a local network; else it is asked for it.")
@click.option("--module-hash", "module_hashes", multiple=True, metavar="HEX", help="Module that channels may use.")
@click.option("--contribute-max", type=Amount(zero=True), default=0, help="Most to put in when a peer proposes.")
@PASSPHRASE_FILE
@click.option(
    "--phrase-file", type=SECRET, metavar="FILE", help="Make the node from the 24 words in this file; - is stdin."
)
@click.option("--without-channels", is_flag=True, help="With --phrase-file: no channel of it is open; do not look.")
@click.option("--ask-peer", "peers", multiple=True, metavar="NODEID@HOST:PORT", help="With --phrase-file: ask it too.")
@click.option("--non-interactive", is_flag=True, help="Never ask.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def init(
    data_dir: Path,
    network: str,
    urls: tuple[str, ...],
    canister: str,
    ledger: str,
    listen: str,
    root_key: str,
    module_hashes: tuple[str, ...],
    contribute_max: int,
    passphrase_file: str | None,
    phrase_file: str | None,
    peers: tuple[str, ...],
    *,
    without_channels: bool,
    non_interactive: bool,
    as_json: bool,
) -> None:
    """Make a node: its keys, its wallet and perund.toml. Nothing that exists is overwritten.

    The 24 words of a node that had channels do not bring these back: `perund restore` does. So with --phrase-file the
    ledger is asked first, and the peers that --ask-peer names; what shows channels, or cannot be asked, ends it.
    """
    if phrase_file == STDIN == passphrase_file:
        raise click.UsageError("Both the phrase and the passphrase from standard input: give one in a file.")

    import msgspec

    from perund.config import Config, default_min_challenge_s
    from perund.config_file import explained
    from perund.keys import Keys
    from perund.logs import configure_logs
    from perund.mnemonic import new_entropy
    from perund.new_node import create_node, local_root_key
    from perund.phrase_file import read_entropy
    from perund.private_file import require_empty

    async def work() -> NewNode:
        if network == "local" and not urls:
            raise ConfigError("a local network has no usual address", "give --url http://127.0.0.1:4943")
        entropy = new_entropy() if phrase_file is None else read_entropy(phrase_file)
        key = root_key or ((await local_root_key(urls[0])).hex() if network == "local" else "")
        table = {
            "network": network,
            "ic": {
                "urls": urls or (DEFAULT_IC_URL,),
                "perun_canister": canister,
                "icp_ledger": ledger,
                "root_key": key.lower(),
                "module_hashes": module_hashes,
            },
            "wire": {"listen": listen},
            "policy": {"contribute_max_e8s": contribute_max, "min_challenge_s": default_min_challenge_s(network)},
        }
        try:
            config = msgspec.convert(table, Config)
        except msgspec.ValidationError as error:
            wrong = explained(str(error), table)
            option = _OPTIONS.get(f"{wrong.section}.{wrong.key}", wrong.key)
            raise ConfigError(f"{option}: {wrong.what}", f"allowed: {wrong.allowed}") from None
        require_empty(data_dir)
        if phrase_file is not None and not without_channels:
            from perund.recovery.traces import require_no_traces

            configure_logs("error")
            await require_no_traces(config, Keys(entropy), [_address(peer) for peer in peers])
        passphrase = ask_passphrase(passphrase_file, twice=True, interactive=not non_interactive)
        return create_node(data_dir, config, entropy, passphrase)

    node = run_async(work, as_json=as_json)
    deed_done(undo=None if phrase_file is not None else lambda: _unmake(node))
    warning = FROM_WORDS if phrase_file is not None else ""
    if as_json:
        made = {**asdict(node), "warning": warning} if warning else asdict(node)
        say_json(msgspec.json.encode(made, enc_hook=str))
        return
    say(f"The node in {node.data_dir} is ready.\n")
    if phrase_file is None:
        say("Write these 24 words down, on paper. They are every key of this node, they are not shown again,")
        say("and whoever has them has its money:\n")
        words = node.phrase.split()
        for start in range(0, len(words), 6):
            numbered = (f"{place:2d} {word:<9}" for place, word in enumerate(words[start : start + 6], start + 1))
            say(f"  {' '.join(numbered)}".rstrip())
        say("")
    if warning:
        say(f"{warning}\n")
    say(f"node id    {node.node_id}")
    say(f"principal  {node.principal}")
    say(f"account    {node.account}\n")
    say(f"Send ICP to the account, then: perund run --dir {node.data_dir}")


def _unmake(node: NewNode) -> str:
    """Remove a node whose words nobody has seen: it holds nothing yet, and could never be brought back."""
    from perund.new_node import remove_node

    remove_node(node.data_dir)
    return "nobody has seen the 24 words, so no node was made; free some space, or send the output elsewhere"


def _address(text: str) -> NodeAddress:
    from wire.address import BadAddress, NodeAddress

    try:
        return NodeAddress.of(text)
    except BadAddress as error:
        raise ConfigError(f"--ask-peer {text!r} is no address: {error}", "write NODEID@host:port") from error


@main.command()
@DIR
@PASSPHRASE_FILE
@click.option(
    "--take-over",
    is_flag=True,
    help="Sign again where another copy of this node has stopped this one. The other copy must be off for good.",
)
@click.option(
    "--begin-empty",
    is_flag=True,
    help="Once, where the store is lost: begin without it. No channel of this node may be open.",
)
def run(data_dir: Path, passphrase_file: str | None, *, take_over: bool, begin_empty: bool) -> None:
    """Run the node until SIGINT or SIGTERM. SIGHUP reads the level of the log again."""
    from perund.cli.surroundings import Surroundings
    from perund.config_file import load_config
    from perund.keystore import KeyStore
    from perund.logs import configure_logs
    from perund.node.daemon import run_node
    from perund.stopping import end_in_time

    surroundings = Surroundings()

    async def work() -> int:
        config = load_config(data_dir)
        store = KeyStore(data_dir)
        store.node_id()  # a missing or damaged file is named before anybody types a passphrase
        keys = store.open(ask_passphrase(passphrase_file, configured=config.keys.passphrase_file))
        configure_logs(config.log.level, config.log.format)
        surroundings.follow(data_dir, config)
        return await run_node(data_dir, config, keys, end_in_time, take_over=take_over, begin_empty=begin_empty)

    sys.exit(run_async(work))


@main.command()
@DIR
@click.option("--once", is_flag=True, help="Make one full round and end: status 1 when anything was wrong.")
def watch(data_dir: Path, *, once: bool) -> None:
    """Watch the node's channels in a process of its own, until SIGINT or SIGTERM.

    It reads the node's store and needs no passphrase: it refutes, and cannot pay or withdraw. It goes on while the
    node is stuck, stopped or being upgraded.
    """
    from perund.cli.surroundings import Surroundings
    from perund.config_file import load_config
    from perund.logs import configure_logs
    from perund.stopping import end_in_time
    from perund.watching.process import run_watch

    surroundings = Surroundings()

    async def work() -> int:
        config = load_config(data_dir)
        configure_logs(config.log.level, config.log.format)
        surroundings.follow(data_dir, config)
        return await run_watch(data_dir, config, once=once, ending=end_in_time)

    sys.exit(run_async(work))


@main.command()
@DIR
@PASSPHRASE_FILE
@click.option("--status", is_flag=True, help="Print what the tower in that directory guards, and end.")
@click.option("--json", "as_json", is_flag=True, help="With --status: print one JSON object.")
def watchtower(data_dir: Path, passphrase_file: str | None, *, status: bool, as_json: bool) -> None:
    """Guard the channels of other nodes, until SIGINT or SIGTERM.

    The directory is made by `perund init`, and is the tower's own: its node id and its address are what clients
    write into `watch.towers`. No wallet is needed.
    """
    if status and passphrase_file is not None:
        raise click.UsageError("--status reads what the tower wrote: it needs no --passphrase-file.")
    if as_json and not status:
        raise click.UsageError(
            "--json goes with --status; the log of a tower that runs is as [log] in perund.toml says."
        )
    if status:
        _print_tower(data_dir, as_json=as_json)
        return
    from perund.cli.surroundings import Surroundings
    from perund.config_file import load_config
    from perund.keystore import KeyStore
    from perund.logs import configure_logs
    from perund.stopping import end_in_time
    from perund.tower.daemon import run_watchtower

    surroundings = Surroundings()

    async def work() -> int:
        config = load_config(data_dir)
        store = KeyStore(data_dir)
        store.node_id()  # a missing or damaged file is named before anybody types a passphrase
        keys = store.open(ask_passphrase(passphrase_file, configured=config.keys.passphrase_file))
        configure_logs(config.log.level, config.log.format)
        surroundings.follow(data_dir, config)
        return await run_watchtower(data_dir, config, keys, end_in_time)

    sys.exit(run_async(work))


def _print_tower(data_dir: Path, *, as_json: bool) -> None:
    import msgspec

    from perund.node.views import moment
    from perund.tower.books import STORE_NAME, read_status

    async def work() -> Status:
        return read_status(data_dir / STORE_NAME)

    found = run_async(work, as_json=as_json)
    if as_json:
        say_json(msgspec.json.encode(asdict(found), enc_hook=str))
        return
    say(f"channels   {found.channels} in {found.slots} slots of {found.clients} clients")
    say(f"unfunded   {found.unproven} slots whose money was not seen yet")
    say(f"settled    {found.settled} slots")
    say(f"conflicts  {found.conflicts}")
    say(f"disk       {found.disk_bytes} bytes")
    for note in found.notes:
        facts = " ".join(f"{key}={value}" for key, value in note.facts.items())
        channel = f" channel={note.channel[:16]}" if note.channel else ""
        say(f"  {moment(note.at_ns)} {note.kind}{channel} {facts}")


@main.command()
@click.option("--port", type=click.IntRange(0, 65_535), default=4943, show_default=True, help="0: any free one.")
@click.option("--host", type=Host(), default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--state", type=Place(file_okay=False), help="Directory that keeps the network.")
def devnet(port: int, host: str, state: Path | None) -> None:
    """Run a local Internet Computer with the Perun canister and the ICP ledger.

    Prints one line of JSON when it answers: its address, canisters and root key.
    """
    import asyncio

    import msgspec

    from devnet.replica.errors import DevnetError
    from devnet.server import run_devnet
    from perund.cli.surroundings import Surroundings
    from perund.logs import configure_logs
    from perund.service_manager import tell

    surroundings = Surroundings()
    configure_logs("warning")

    def ready(network: Ready) -> None:
        say_json(msgspec.json.encode(network))
        tell("READY=1", f"STATUS=answering at {network['url']}")

    async def work() -> None:
        surroundings.follow()
        stop = asyncio.Event()
        _stop_on_signals(stop)
        await run_devnet(host, port, state, ready, stop)

    try:
        run_async(work)
    except DevnetError as error:
        fail(str(error), "", FAILED)


@main.command()
def demo() -> None:
    """Show a channel's whole life on a local network."""
    from perund.demo import run_demo

    sys.exit(run_async(run_demo))


def _stop_on_signals(stop: asyncio.Event) -> None:
    import asyncio
    import signal

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)


for _command in (recovery.backup, recovery.restore, recovery.check, keys_commands.passphrase):
    main.add_command(_command)

if __name__ == "__main__":
    main()
