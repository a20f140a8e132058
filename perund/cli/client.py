"""`perun`: talks to the node of a data directory."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from perund.amounts import format_icp
from perund.cli import show
from perund.cli.failing import fail, run_async
from perund.cli.values import Amount, ChannelRef, Duration, PeerRef
from perund.cli.waiting import GRACE_S, QUICK_S, Tell, ask_until, new_key, telling
from perund.control import methods, schema
from perund.control.client import ControlClient
from perund.control.envelope import ENCODER
from perund.control.errors import RpcError
from perund.control.methods import Method, P, R
from perund.control.values import E8s, PaidE8s, Seconds
from perund.durations import format_duration
from protocol.types import MAX_INT64

__all__ = ["main"]

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


@dataclass
class _Settings:
    """What is said before or after the name of a command."""

    data_dir: Path | None = None
    as_json: bool = False
    timeout_s: int | None = None


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


def _keep_timeout(ctx: click.Context, _: click.Parameter, value: int | None) -> None:
    if value is not None:
        ctx.ensure_object(_Settings).timeout_s = value


def _everywhere(function: F) -> F:
    """Accept --json, --dir and --timeout here too: nobody remembers on which side of the command they belong."""
    path = click.Path(path_type=Path, file_okay=False)
    directory = click.option(
        "--dir", type=path, expose_value=False, callback=_keep_dir, help="Data directory; else PERUND_DIR names it."
    )
    as_json = click.option(
        "--json", is_flag=True, expose_value=False, callback=_keep_json, help="Print JSON, one object."
    )
    timeout = click.option(
        "--timeout",
        type=Duration(),
        expose_value=False,
        callback=_keep_timeout,
        help="Wait no longer than this; exit code 6 then. What was asked for goes on.",
    )
    return directory(as_json(timeout(function)))


def _keyed(what: str) -> Callable[[F], F]:
    """Add the option for an idempotency key. `what`: what the same key twice is one of."""
    text = f"The same key twice is one {what}. Made when it is not given, and told when the outcome is not known."
    return click.option("--key", "--idempotency-key", "key", metavar="KEY", help=text)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@_everywhere
@click.version_option(package_name="perund")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Control a running perund node. CHANNEL is an id, or its beginning (at least 8 digits)."""
    ctx.ensure_object(_Settings)


def _settings() -> _Settings:
    settings = click.get_current_context().ensure_object(_Settings)
    # Not an `envvar` of the option: after the command it would win over a --dir that stands before it.
    if settings.data_dir is None and os.environ.get("PERUND_DIR"):
        settings.data_dir = Path(os.environ["PERUND_DIR"])
    if settings.data_dir is None:
        raise click.UsageError("Missing option '--dir' (or the environment variable PERUND_DIR).")
    return settings


def _print(settings: _Settings, result: object, text: Callable[[], None]) -> None:
    if settings.as_json:
        click.echo(ENCODER.encode(result).decode())
    else:
        text()


def _run(
    work: Callable[[ControlClient, Tell], Coroutine[None, None, T]],
    *,
    key: str = "",
    waits: bool = False,
    otherwise_s: float | None = QUICK_S,
) -> T:
    """Run `work` with a connection to the node, for as long as --timeout says, or for `otherwise_s`.

    `waits`: it keeps the time itself, as long as the node answers, and says what it waits for.
    """
    settings = _settings()
    limit_s = otherwise_s if settings.timeout_s is None else settings.timeout_s
    if waits:
        limit_s = None if settings.timeout_s is None else settings.timeout_s + GRACE_S

    async def bounded() -> T:
        assert settings.data_dir is not None
        try:
            async with asyncio.timeout(limit_s) as limit, await ControlClient.connect(settings.data_dir) as client:
                if not waits:
                    return await work(client, lambda _: None)
                with telling(as_json=settings.as_json) as tell:
                    return await work(client, tell)
        except TimeoutError as error:
            if not limit.expired():
                raise
            given = format_duration(settings.timeout_s or int(QUICK_S))
            text = f"the node has not answered, or not to the end, within {given}"
            raise RpcError("wait_ended", text, hint="ask again; its log tells how it is") from error

    return run_async(bounded, as_json=settings.as_json, key=key)


def _ask(method: Method[P, R], params: P) -> R:
    """Call, and return the answer."""

    async def work(client: ControlClient, _: Tell) -> R:
        return await client.call(method, params)

    return _run(work)


def _call(method: Method[P, R], params: P, text: Callable[[R], None]) -> None:
    """Call, and print the result."""
    result = _ask(method, params)
    _print(_settings(), result, lambda: text(result))


def _act(
    method: Method[P, R],
    params: P,
    text: Callable[[R], None],
    *,
    waits: bool,
    agree: Callable[[RpcError, P], P | None] = lambda _, __: None,
) -> None:
    """Carry out an action under its idempotency key, one that is made if none is given, and print the result.

    `waits`: the method takes a time limit, and is asked until it has ended; `agree`: returns what to call with after a
    refusal that a person may overrule, or None.
    """
    settings, key = _settings(), ""
    if "idempotency_key" in params.__struct_fields__:
        key = getattr(params, "idempotency_key") or new_key()  # noqa: B009  (not every params has the field)
        params = msgspec.structs.replace(params, idempotency_key=key)

    async def ask(client: ControlClient, params: P, tell: Tell) -> R:
        if not waits:
            return await client.call(method, params)
        return await ask_until(client, method, params, settings.timeout_s, tell)

    async def work(client: ControlClient, tell: Tell) -> R:
        try:
            return await ask(client, params, tell)
        except RpcError as error:
            agreed = agree(error, params)
            if agreed is None:
                raise
            return await ask(client, agreed, tell)

    result = _run(work, key=key, waits=waits)
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
    _call(methods.NODE_INFO, schema.NoParams(), show.info)


@main.command()
@_everywhere
def health() -> None:
    """Whether the money is safe right now. Exit code 1 when something is urgent."""
    result = _ask(methods.NODE_HEALTH, schema.NoParams())
    _print(_settings(), result, lambda: show.health(result))
    if not result.ok:
        sys.exit(1)


@main.command()
@_everywhere
def stop() -> None:
    """Stop the node cleanly."""
    _call(methods.NODE_STOP, schema.NoParams(), lambda _: click.echo("the node is stopping"))


@main.group()
@_everywhere
def wallet() -> None:
    """The node's ICP on the ledger."""


@wallet.command()
@_everywhere
def balance() -> None:
    """Show the account and its balance."""
    _call(methods.WALLET_BALANCE, schema.NoParams(), show.wallet)


@wallet.command()
@_everywhere
def address() -> None:
    """Show only the account to send ICP to. Needs no network."""
    result = _ask(methods.NODE_INFO, schema.NoParams())
    found = {"account": result.account, "principal": result.principal}
    _print(_settings(), found, lambda: click.echo(result.account))


@wallet.command()
@_everywhere
@click.argument("to")
@click.argument("amount", type=Amount())
@click.option("--yes", is_flag=True, help="Do not ask, also where the money would be lost.")
@_keyed("transfer")
def send(to: str, amount: int, key: str | None, *, yes: bool) -> None:
    """Send AMOUNT to an account or principal."""

    def agree(error: RpcError, params: schema.SendParams) -> schema.SendParams | None:
        if error.name != "loses_money" or not sys.stdin.isatty():
            return None
        click.echo(error.message, err=True)
        click.confirm(f"Send {format_icp(amount)} there all the same?", abort=True, err=True)
        return msgspec.structs.replace(params, accept_loss=True)

    _act(
        methods.WALLET_SEND,
        schema.SendParams(to=to, amount_e8s=PaidE8s(amount), idempotency_key=key, accept_loss=yes),
        lambda r: click.echo(f"sent {format_icp(r.amount_e8s)} in block {r.block}"),
        waits=True,
        agree=agree,
    )


@main.command()
@_everywhere
@click.argument("peer", type=PeerRef(place=True))
def connect(peer: str) -> None:
    """Connect to PEER (NODEID@host:port) and keep connected."""
    params = schema.PeerConnectParams(peer=peer)
    _call(methods.PEER_CONNECT, params, lambda r: click.echo(f"connected to {r.node_id} at {r.address}"))


@main.command()
@_everywhere
def peers() -> None:
    """Show peers, connected or with channels."""
    _call(methods.PEER_LIST, schema.NoParams(), show.peers)


@main.command(name="open")
@_everywhere
@click.argument("peer", type=PeerRef(place=False))
@click.option("--mine", type=Amount(zero=True), required=True, help="What this node puts in.")
@click.option("--theirs", type=Amount(zero=True), default=0, show_default=True, help="What the peer puts in.")
@click.option("--challenge", type=Duration(), default="1d", show_default=True, help="Time to refute a stale state.")
@click.option("--funding-timeout", type=Duration(), help="After it an unfunded channel is given up.")
@click.option("--wait/--no-wait", default=True, help="Wait until it is open, or only until it is signed.")
@_keyed("channel")
def open_channel(
    peer: str,
    mine: int,
    theirs: int,
    challenge: int,
    funding_timeout: int | None,
    key: str | None,
    *,
    wait: bool,
) -> None:
    """Open a channel with PEER (NODEID or NODEID@host:port)."""
    params = _params(
        lambda: schema.ChannelOpenParams(
            peer=peer,
            mine_e8s=E8s(mine),
            theirs_e8s=E8s(theirs),
            challenge_s=Seconds(challenge),
            funding_timeout_s=None if funding_timeout is None else Seconds(funding_timeout),
            idempotency_key=key,
            wait=wait,
        )
    )
    _act(methods.CHANNEL_OPEN, params, show.channel, waits=True)


@main.command()
@_everywhere
@click.argument("channel", type=ChannelRef())
@click.argument("amount", type=Amount())
@click.option("--memo", help="Text for the receiver, at most 256 bytes.")
@click.option("--payment-id", metavar="HEX", help="An id of one's own, 16 bytes.")
@click.option("--wait/--no-wait", default=True, help="Wait until the peer has it, or only until it is queued.")
@_keyed("payment")
def pay(channel: str, amount: int, memo: str | None, payment_id: str | None, key: str | None, *, wait: bool) -> None:
    """Pay the peer AMOUNT through CHANNEL."""
    params = _params(
        lambda: schema.PayParams(
            channel=channel,
            amount_e8s=PaidE8s(amount),
            memo=memo,
            payment_id=payment_id,
            idempotency_key=key,
            wait=wait,
        )
    )
    _act(methods.CHANNEL_PAY, params, lambda r: show.paid(amount, r), waits=wait)


@main.command()
@_everywhere
@click.option("--phase", help="Only channels in this phase.")
@click.option("--limit", type=click.IntRange(1, 1_000), help="Only so many; all when left out.")
def channels(phase: str | None, limit: int | None) -> None:
    """Show channels."""

    async def work(client: ControlClient, _: Tell) -> list[schema.Channel]:
        found: list[schema.Channel] = []
        after = None
        while True:
            size = min(1_000, limit - len(found)) if limit else 1_000
            params = schema.ChannelListParams(phase=phase, after=after, limit=size)
            page = await client.call(methods.CHANNEL_LIST, params)
            found += page.channels
            after = page.next
            if after is None or (limit and len(found) >= limit):
                return found

    result = _run(work)
    _print(_settings(), {"channels": result}, lambda: show.channels(result))


@main.command()
@_everywhere
@click.argument("channel", type=ChannelRef())
def channel(channel: str) -> None:
    """Show one channel."""
    _call(methods.CHANNEL_GET, schema.ChannelGetParams(channel=channel), show.channel)


@main.command()
@_everywhere
@click.option("--channel", type=ChannelRef(), help="Only those of one channel.")
@click.option("--after", metavar="NEXT", help="Continue after the `next` of the page before.")
@click.option("--limit", type=click.IntRange(1, 1_000), default=100, show_default=True)
def payments(channel: str | None, after: str | None, limit: int) -> None:
    """Show payments in both directions, oldest first."""
    params = schema.PaymentListParams(channel=channel, after=after, limit=limit)
    _call(methods.PAYMENT_LIST, params, show.payments)


@main.command()
@_everywhere
@click.argument("channel", type=ChannelRef())
@click.argument("payment")
def cancel(channel: str, payment: str) -> None:
    """Take back a payment that is still queued."""
    params = schema.PaymentCancelParams(channel=channel, payment=payment)
    _call(methods.PAYMENT_CANCEL, params, lambda r: click.echo(f"payment {r.payment} is {r.status}"))


@main.command()
@_everywhere
@click.argument("channel", type=ChannelRef())
@click.option("--force-after", type=Duration(), help="How long the peer has; then it is done alone.")
@click.option("--wait/--no-wait", default=True, help="Wait until the money has arrived.")
@_keyed("close")
def close(channel: str, force_after: int | None, key: str | None, *, wait: bool) -> None:
    """Close CHANNEL together with the peer; alone if it does not answer."""
    params = schema.ChannelCloseParams(
        channel=channel,
        force_after_s=None if force_after is None else Seconds(force_after),
        wait=wait,
        idempotency_key=key,
    )
    _act(methods.CHANNEL_CLOSE, params, show.channel, waits=wait)


@main.command()
@_everywhere
@click.argument("channel", type=ChannelRef())
@click.option("--yes", is_flag=True, help="Do not ask.")
@_keyed("dispute")
@click.option("--accept-risk", is_flag=True, help="Also when this node lost data, and its state may be old.")
def dispute(channel: str, key: str | None, *, yes: bool, accept_risk: bool) -> None:
    """Leave CHANNEL alone: register the newest state and wait for the challenge period."""
    if not yes:
        if not sys.stdin.isatty():
            fail("a dispute needs a yes", "give --yes in scripts", 2, as_json=_settings().as_json)
        found = _ask(methods.CHANNEL_GET, schema.ChannelGetParams(channel=channel))
        click.echo(
            f"The state of version {found.version} is registered: {format_icp(found.mine_e8s)} are yours. The money "
            f"stays locked for {format_duration(found.challenge_s)}, payments that are queued fail, and the channel "
            "ends. Closing together (`perun close`) takes seconds.",
            err=True,
        )
        click.confirm("Dispute?", abort=True, err=True)
    params = schema.ChannelDisputeParams(channel=channel, idempotency_key=key, accept_risk=accept_risk)
    _act(methods.CHANNEL_DISPUTE, params, show.channel, waits=False)


@main.command()
@_everywhere
@click.argument("channel", type=ChannelRef())
@click.option("--accept", is_flag=True, help="Declare the newest state known here the newest, and close on its shares.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_keyed("declaration")
def recover(channel: str, key: str | None, *, accept: bool, yes: bool) -> None:
    """Show what is known of CHANNEL after a loss of data, and end the loss with --accept."""
    settings = _settings()
    asked = schema.ChannelRecoverParams(channel=channel)
    if not accept:
        _call(methods.CHANNEL_RECOVER, asked, show.recovery)
        return

    if not yes and not sys.stdin.isatty():
        fail("ending a loss needs a yes", "give --yes in scripts", 2, as_json=settings.as_json)

    found = _ask(methods.CHANNEL_RECOVER, asked)
    click.echo(
        f"The channel is closed with the shares of version {found.version}: {format_icp(found.mine_e8s)} are yours. "
        f"What the peer paid you in a later state that this node lost, at most {format_icp(found.at_risk_e8s)}, "
        "you give up, and nothing can bring it back. `perun dispute --accept-risk` instead leaves a challenge "
        "period in which a newer state can still come from whoever has it.",
        err=True,
    )
    if not yes:
        show.recovery(found)
        click.confirm("Accept?", abort=True, err=True)
    params = schema.ChannelRecoverParams(channel=channel, accept_version=found.version, idempotency_key=key)
    _act(methods.CHANNEL_RECOVER, params, show.recovery, waits=False)


@main.command()
@_everywhere
@click.argument("channel", type=ChannelRef())
def withdraw(channel: str) -> None:
    """Take out now what is ours in a settled CHANNEL; the node does it by itself too."""
    _act(methods.CHANNEL_WITHDRAW, schema.ChannelWithdrawParams(channel=channel), show.channel, waits=True)


@main.command()
@_everywhere
@click.option("--after", type=click.IntRange(0, MAX_INT64), help="From this cursor on; else from now on.")
@click.option("--kind", "kinds", multiple=True, help="Only events of this name; can be repeated.")
@click.option("--count", type=click.IntRange(1), help="End after so many.")
def events(after: int | None, kinds: tuple[str, ...], count: int | None) -> None:
    """Show events as they happen, one line each (with --json one object each)."""
    settings = _settings()

    async def work(client: ControlClient, _: Tell) -> None:
        left = count
        async for event in client.events(after, list(kinds) or None):
            _print(settings, event, lambda event=event: show.event(event))  # type: ignore[misc]
            sys.stdout.flush()
            left = None if left is None else left - 1
            if left == 0:
                return

    _run(work, otherwise_s=None)


@main.command()
@_everywhere
@click.argument("method")
@click.argument("params", default="{}")
def call(method: str, params: str) -> None:
    """Call METHOD of the control interface with PARAMS (JSON) and print its result."""
    try:
        decoded = msgspec.json.decode(params)
    except msgspec.DecodeError as error:
        raise click.UsageError(f"PARAMS is not JSON: {error}") from None

    async def work(client: ControlClient, _: Tell) -> object:
        return await client.call(method, decoded)

    result = _run(work, otherwise_s=None)
    click.echo(ENCODER.encode(result).decode())


if __name__ == "__main__":
    main()
