"""`perun`: talks to the node of a data directory."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from perund.amounts import format_icp
from perund.cli.failing import COMMANDS, fail, run, run_async
from perund.cli.lazy import lazily
from perund.cli.output import complain, deed_done, say, say_json
from perund.cli.program import Program
from perund.cli.values import (
    Amount,
    ChannelRef,
    Duration,
    Key,
    MemoText,
    PaymentId,
    PeerRef,
    Place,
    Word,
    shown,
)  # fmt: skip
from perund.control.events import EVENTS
from perund.durations import format_duration
from perund.environment import data_dir, refuse_unknown
from protocol.limits import MAX_INT64

if TYPE_CHECKING:
    from perund.cli import show
    from perund.control import envelope, methods, schema, values
    from perund.control.client import ControlClient
    from perund.control.methods import Method, P, R
else:
    envelope, methods, schema, values = (
        lazily(f"perund.control.{name}") for name in ("envelope", "methods", "schema", "values")
    )
    show = lazily("perund.cli.show")
    P = TypeVar("P")

__all__ = ["main"]

F = TypeVar("F", bound=Callable[..., Any])

PHASES: Final = ("funding", "open", "closing", "leaving", "closed")
_LOOKS: Final = {
    "node.info", "node.health", "wallet.balance", "peer.list", "channel.list", "channel.get", "payment.list",
    "event.subscribe", "rpc.discover",
}  # fmt: skip
"""Methods that change nothing: what they answer is all that was wanted."""


@dataclass
class _Settings:
    """What is said before or after the name of a command."""

    data_dir: Path | None = None
    as_json: bool = False


def _keep_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001  (click's signature)
    if value:
        ctx.ensure_object(_Settings).as_json = True


def _keep_dir(ctx: click.Context, _: click.Parameter, value: Path | None) -> None:
    if value is None:
        return
    settings = ctx.ensure_object(_Settings)
    if settings.data_dir not in (None, value):
        raise click.UsageError(f"--dir is given twice: {settings.data_dir} and {value}.")
    settings.data_dir = value


def _everywhere(function: F) -> F:
    """Accept --json and --dir here too: nobody remembers on which side of the command they belong."""
    directory = click.option(
        "--dir",
        type=Place(file_okay=False),
        expose_value=False,
        callback=_keep_dir,
        help="Data directory; else what PERUND_DIR says, else ~/.perund.",
    )
    as_json = click.option(
        "--json", is_flag=True, expose_value=False, callback=_keep_json, help="Print JSON, one object."
    )
    return directory(as_json(function))


@click.group("perun", cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@_everywhere
@click.version_option(package_name="perund")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Control a running perund node. CHANNEL is an id, or its beginning (at least 8 digits)."""
    ctx.ensure_object(_Settings)


def _client_of(settings: _Settings) -> Awaitable[ControlClient]:
    from perund.control.client import ControlClient

    assert settings.data_dir is not None
    return ControlClient.connect(settings.data_dir)


def _look(method: Method[P, R], params: P) -> R:
    """Ask what a node answers at once. Without an event loop, which costs as much as all the rest of the command."""
    from perund.control.asking import ask

    settings = _settings()
    assert settings.data_dir is not None
    path = settings.data_dir
    return run(lambda: ask(path, method, params), as_json=settings.as_json)


def _show(method: Method[P, R], params: P, text: Callable[[R], None]) -> None:
    """Ask, and print the answer."""
    result = _look(method, params)
    _print(_settings(), result, lambda: text(result))


def _settings() -> _Settings:
    settings = click.get_current_context().ensure_object(_Settings)
    refuse_unknown()
    # Not a `default` of the option: after the command it would win over a --dir that stands before it.
    settings.data_dir = settings.data_dir or data_dir()
    return settings


def _print(settings: _Settings, result: object, text: Callable[[], None]) -> None:
    if settings.as_json:
        say_json(envelope.ENCODER.encode(result))
    else:
        text()


def _call(method: Method[P, R], params: P, text: Callable[[R], None], *, waiting: str = "", channel: str = "") -> None:
    """Call, show progress while it lasts, and print the result. `waiting`: what the progress says first."""
    settings = _settings()

    async def work() -> R:
        async with await _client_of(settings) as client:
            if waiting and not settings.as_json and sys.stderr.isatty():
                assert settings.data_dir is not None
                from perund.cli.progress import watching

                async with watching(settings.data_dir, waiting, channel):
                    return await client.call(method, params)
            return await client.call(method, params)

    result = run_async(work, as_json=settings.as_json)
    deed_done()
    _print(settings, result, lambda: text(result))


def _params(build: Callable[[], P]) -> P:
    """Build params from arguments; what the schema refuses is a usage error. Checked here as in the node."""
    try:
        return build()
    except ValueError as error:
        raise click.UsageError(str(error)) from None


@main.command()
@_everywhere
def info() -> None:
    """Who the node is and how it is."""
    _show(methods.NODE_INFO, schema.NoParams(), show.info)


@main.command()
@_everywhere
def health() -> None:
    """Whether the money is safe right now. Exit code 1 when something is urgent."""
    result = _look(methods.NODE_HEALTH, schema.NoParams())
    _print(_settings(), result, lambda: show.health(result))
    if not result.ok:
        sys.exit(1)


@main.command()
@_everywhere
def stop() -> None:
    """Stop the node cleanly."""
    _call(methods.NODE_STOP, schema.NoParams(), lambda _: say("the node is stopping"))


@main.group()
@_everywhere
def wallet() -> None:
    """The node's ICP on the ledger."""


@wallet.command()
@_everywhere
def balance() -> None:
    """Show the account and its balance."""
    _show(methods.WALLET_BALANCE, schema.NoParams(), show.wallet)


@wallet.command()
@_everywhere
def address() -> None:
    """Show only the account to send ICP to. Needs no network."""
    result = _look(methods.NODE_INFO, schema.NoParams())
    found = {"account": result.account, "principal": result.principal}
    _print(_settings(), found, lambda: say(result.account))


@wallet.command()
@_everywhere
@click.argument("to")
@click.argument("amount", type=Amount())
@click.option("--idempotency-key", type=Key(), metavar="KEY", help="The same key twice is one transfer.")
def send(to: str, amount: int, idempotency_key: str | None) -> None:
    """Send AMOUNT to an account or principal."""
    params = schema.SendParams(to=to, amount_e8s=values.PaidE8s(amount), idempotency_key=idempotency_key)
    _call(methods.WALLET_SEND, params, lambda r: say(f"sent {format_icp(r.amount_e8s)} in block {r.block}"))


@main.command()
@_everywhere
@click.argument("peer", type=PeerRef(place=True))
def connect(peer: str) -> None:
    """Connect to PEER (NODEID@host:port) and keep connected."""
    params = schema.PeerConnectParams(peer=peer)
    _call(methods.PEER_CONNECT, params, lambda r: say(f"connected to {r.node_id} at {r.address}"))


@main.command()
@_everywhere
def peers() -> None:
    """Show peers, connected or with channels."""
    _show(methods.PEER_LIST, schema.NoParams(), show.peers)


@main.command(name="open")
@_everywhere
@click.argument("peer", type=PeerRef(place=False))
@click.option("--mine", type=Amount(zero=True), required=True, help="What this node puts in.")
@click.option("--theirs", type=Amount(zero=True), default=0, show_default=True, help="What the peer puts in.")
@click.option("--challenge", type=Duration(), default="1d", show_default=True, help="Time to refute a stale state.")
@click.option("--funding-timeout", type=Duration(), help="After it an unfunded channel is given up.")
@click.option("--wait/--no-wait", default=True, help="Wait until it is open, or only until it is signed.")
@click.option("--idempotency-key", type=Key(), metavar="KEY", help="The same key twice is one channel.")
def open_channel(
    peer: str,
    mine: int,
    theirs: int,
    challenge: int,
    funding_timeout: int | None,
    idempotency_key: str | None,
    *,
    wait: bool,
) -> None:
    """Open a channel with PEER (NODEID or NODEID@host:port)."""
    params = _params(
        lambda: schema.ChannelOpenParams(
            peer=peer,
            mine_e8s=values.E8s(mine),
            theirs_e8s=values.E8s(theirs),
            challenge_s=values.Seconds(challenge),
            funding_timeout_s=None if funding_timeout is None else values.Seconds(funding_timeout),
            idempotency_key=idempotency_key,
            wait=wait,
        )
    )
    _call(methods.CHANNEL_OPEN, params, show.channel, waiting="opening the channel" if wait else "")


@main.command()
@_everywhere
@click.argument("channel", type=ChannelRef())
@click.argument("amount", type=Amount())
@click.option("--memo", type=MemoText(), help="Text for the receiver, at most 256 bytes.")
@click.option("--payment-id", type=PaymentId(), metavar="HEX", help="An id of one's own, 16 bytes.")
@click.option("--wait/--no-wait", default=True, help="Wait until the peer has it, or only until it is queued.")
@click.option("--idempotency-key", type=Key(), metavar="KEY", help="The same key twice is one payment.")
def pay(
    channel: str, amount: int, memo: str | None, payment_id: str | None, idempotency_key: str | None, *, wait: bool
) -> None:
    """Pay the peer AMOUNT through CHANNEL."""
    params = _params(
        lambda: schema.PayParams(
            channel=channel,
            amount_e8s=values.PaidE8s(amount),
            memo=memo,
            payment_id=payment_id,
            idempotency_key=idempotency_key,
            wait=wait,
        )
    )
    _call(
        methods.CHANNEL_PAY, params, lambda r: show.paid(amount, r), waiting="paying" if wait else "", channel=channel
    )


@main.command()
@_everywhere
@click.option("--phase", type=Word("phase", PHASES), help="Only channels in this phase.")
@click.option("--limit", type=click.IntRange(1, 1_000), help="Only so many; all when left out.")
def channels(phase: str | None, limit: int | None) -> None:
    """Show channels."""
    result: list[schema.Channel] = []
    after = None
    while True:
        size = min(1_000, limit - len(result)) if limit else 1_000
        page = _look(methods.CHANNEL_LIST, schema.ChannelListParams(phase=phase, after=after, limit=size))
        result += page.channels
        after = page.next
        if after is None or (limit and len(result) >= limit):
            break
    _print(_settings(), {"channels": result}, lambda: show.channels(result))


@main.command()
@_everywhere
@click.argument("channel", type=ChannelRef())
def channel(channel: str) -> None:
    """Show one channel."""
    _show(methods.CHANNEL_GET, schema.ChannelGetParams(channel=channel), show.channel)


@main.command()
@_everywhere
@click.option("--channel", type=ChannelRef(), help="Only those of one channel.")
@click.option("--after", metavar="NEXT", help="Continue after the `next` of the page before.")
@click.option("--limit", type=click.IntRange(1, 1_000), default=100, show_default=True)
def payments(channel: str | None, after: str | None, limit: int) -> None:
    """Show payments in both directions, oldest first."""
    params = schema.PaymentListParams(channel=channel, after=after, limit=limit)
    _show(methods.PAYMENT_LIST, params, show.payments)


@main.command()
@_everywhere
@click.argument("channel", type=ChannelRef())
@click.argument("payment", type=PaymentId())
def cancel(channel: str, payment: str) -> None:
    """Take back a payment that is still queued."""
    params = schema.PaymentCancelParams(channel=channel, payment=payment)
    _call(methods.PAYMENT_CANCEL, params, lambda r: say(f"payment {r.payment} is {r.status}"))


@main.command()
@_everywhere
@click.argument("channel", type=ChannelRef())
@click.option("--force-after", type=Duration(), help="How long the peer has; then it is done alone.")
@click.option("--wait/--no-wait", default=True, help="Wait until the money has arrived.")
@click.option("--idempotency-key", type=Key(), metavar="KEY", help="The same key twice is one close.")
def close(channel: str, force_after: int | None, idempotency_key: str | None, *, wait: bool) -> None:
    """Close CHANNEL together with the peer; alone if it does not answer."""
    params = schema.ChannelCloseParams(
        channel=channel,
        force_after_s=None if force_after is None else values.Seconds(force_after),
        wait=wait,
        idempotency_key=idempotency_key,
    )
    _call(methods.CHANNEL_CLOSE, params, show.channel, waiting="closing" if wait else "", channel=channel)


@main.command()
@_everywhere
@click.argument("channel", type=ChannelRef())
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--idempotency-key", type=Key(), metavar="KEY", help="The same key twice is one dispute.")
@click.option("--accept-risk", is_flag=True, help="Also when this node lost data, and its state may be old.")
def dispute(channel: str, idempotency_key: str | None, *, yes: bool, accept_risk: bool) -> None:
    """Leave CHANNEL alone: register the newest state and wait for the challenge period."""
    settings = _settings()

    if not yes:
        if not sys.stdin.isatty():
            fail("a dispute needs a yes", "give --yes in scripts", 2, as_json=settings.as_json)
        found = _look(methods.CHANNEL_GET, schema.ChannelGetParams(channel=channel))
        complain(
            f"The state of version {found.version} is registered: {format_icp(found.mine_e8s)} are yours. The money "
            f"stays locked for {format_duration(found.challenge_s)}, payments that are queued fail, and the channel "
            "ends. Closing together (`perun close`) takes seconds.",
        )
        click.confirm("Dispute?", abort=True, err=True)
    params = schema.ChannelDisputeParams(channel=channel, idempotency_key=idempotency_key, accept_risk=accept_risk)
    _call(methods.CHANNEL_DISPUTE, params, show.channel)


@main.command()
@_everywhere
@click.argument("channel", type=ChannelRef())
@click.option("--accept", is_flag=True, help="Declare the newest state known here the newest, and close on its shares.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--idempotency-key", type=Key(), metavar="KEY", help="The same key twice is one declaration.")
def recover(channel: str, idempotency_key: str | None, *, accept: bool, yes: bool) -> None:
    """Show what is known of CHANNEL after a loss of data, and end the loss with --accept."""
    settings = _settings()
    asked = schema.ChannelRecoverParams(channel=channel)
    if not accept:
        _show(methods.CHANNEL_RECOVER, asked, show.recovery)
        return

    if not yes and not sys.stdin.isatty():
        fail("ending a loss needs a yes", "give --yes in scripts", 2, as_json=settings.as_json)

    found = _look(methods.CHANNEL_RECOVER, asked)
    complain(
        f"The channel is closed with the shares of version {found.version}: {format_icp(found.mine_e8s)} are yours. "
        f"What the peer paid you in a later state that this node lost, at most {format_icp(found.at_risk_e8s)}, "
        "you give up, and nothing can bring it back. `perun dispute --accept-risk` instead leaves a challenge "
        "period in which a newer state can still come from whoever has it.",
    )
    if not yes:
        show.recovery(found)
        click.confirm("Accept?", abort=True, err=True)
    params = schema.ChannelRecoverParams(channel=channel, accept_version=found.version, idempotency_key=idempotency_key)
    _call(methods.CHANNEL_RECOVER, params, show.recovery)


@main.command()
@_everywhere
@click.argument("channel", type=ChannelRef())
def withdraw(channel: str) -> None:
    """Take out now what is ours in a settled CHANNEL; the node does it by itself too."""
    _call(methods.CHANNEL_WITHDRAW, schema.ChannelWithdrawParams(channel=channel), show.channel)


@main.command()
@_everywhere
@click.option("--after", type=click.IntRange(0, MAX_INT64), help="From this cursor on; else from now on.")
@click.option(
    "--kind", "kinds", type=Word("event", EVENTS), multiple=True, help="Only events of this name; can be repeated."
)
@click.option("--count", type=click.IntRange(1), help="End after so many.")
def events(after: int | None, kinds: tuple[str, ...], count: int | None) -> None:
    """Show events as they happen, one line each (with --json one object each)."""
    settings = _settings()

    async def work() -> None:
        left = count
        async with await _client_of(settings) as client:
            async for event in client.events(after, list(kinds) or None):
                _print(settings, event, lambda event=event: show.event(event))  # type: ignore[misc]
                sys.stdout.flush()
                left = None if left is None else left - 1
                if left == 0:
                    return

    run_async(work, as_json=settings.as_json)


@main.command()
@_everywhere
@click.argument("method", type=Word("method", COMMANDS))
@click.argument("params", default="{}")
def call(method: str, params: str) -> None:
    """Call METHOD of the control interface with PARAMS (JSON) and print its result."""
    import msgspec

    settings = _settings()
    try:
        decoded = msgspec.json.decode(params)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise click.UsageError(f"PARAMS {shown(params)} is not JSON: {error}") from None

    async def work() -> object:
        async with await _client_of(settings) as client:
            return await client.call(method, decoded)

    result = run_async(work, as_json=settings.as_json)
    if method not in _LOOKS:
        deed_done()
    say_json(envelope.ENCODER.encode(result))


if __name__ == "__main__":
    main()
