"""`perun`: talks to the node of a data directory."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from perund.amounts import format_icp
from perund.cli.failing import COMMANDS, fail, for_people, run, run_async
from perund.cli.lazy import lazily
from perund.cli.output import complain, deed_done, note, say, say_json
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
from perund.control.errors import RpcError
from perund.control.events import EVENTS
from perund.durations import format_duration
from perund.environment import data_dir, refuse_unknown
from protocol.limits import MAX_INT64

if TYPE_CHECKING:
    from perund.cli import show, waiting
    from perund.cli.waiting import Tell
    from perund.control import envelope, methods, schema, values
    from perund.control.client import ControlClient
    from perund.control.methods import Method, P, R
else:
    envelope, methods, schema, values = (
        lazily(f"perund.control.{name}") for name in ("envelope", "methods", "schema", "values")
    )
    show, waiting = (lazily(f"perund.cli.{name}") for name in ("show", "waiting"))
    P = TypeVar("P")

__all__ = ["main"]

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

PHASES: Final = ("funding", "open", "closing", "leaving", "closed")
_LOOKS: Final = {
    "node.info", "node.health", "wallet.balance", "peer.list", "channel.list", "channel.get", "payment.list",
    "event.subscribe", "rpc.discover",
}  # fmt: skip
"""Methods that change nothing: what they answer is all that was wanted."""
QUICK_S: Final = 120
"""What does not wait for anybody is answered long before; a node that is stopped or stuck answers nothing."""


@dataclass
class _Settings:
    """What is said before or after the name of a command."""

    data_dir: Path | None = None
    as_json: bool = False
    timeout_s: int | None = None
    since_s: float = field(default_factory=time.monotonic)
    """When the command began."""


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
    return click.option("--key", "--idempotency-key", "key", type=Key(), metavar="KEY", help=text)


@click.group("perun", cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@_everywhere
@click.version_option(package_name="perund")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Control a running perund node. CHANNEL is an id, or its beginning (at least 8 digits)."""
    ctx.ensure_object(_Settings)


def _look(method: Method[P, R], params: P) -> R:
    """Ask what a node answers at once. Without an event loop, which costs as much as all the rest of the command."""
    from perund.control.asking import ask

    settings = _settings()
    assert settings.data_dir is not None
    path, limit_s = settings.data_dir, settings.timeout_s or QUICK_S
    end_s = settings.since_s + limit_s
    return run(lambda: ask(path, method, params, limit_s=limit_s, end_s=end_s), as_json=settings.as_json)


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
        limit_s = None if settings.timeout_s is None else settings.timeout_s + waiting.GRACE_S

    async def bounded() -> T:
        import asyncio

        from perund.control.client import ControlClient
        from perund.control.messages import not_answered

        assert settings.data_dir is not None
        try:
            async with asyncio.timeout(limit_s) as limit, await ControlClient.connect(settings.data_dir) as client:
                if not waits:
                    return await work(client, lambda _: None)
                with waiting.telling(as_json=settings.as_json) as tell:
                    return await work(client, tell)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise not_answered(settings.timeout_s or QUICK_S) from error

    return run_async(bounded, as_json=settings.as_json, key=key)


def _call(method: Method[P, R], params: P, text: Callable[[R], None]) -> None:
    """Carry out what nobody is waited for, and print the result."""

    async def work(client: ControlClient, _: Tell) -> R:
        return await client.call(method, params)

    result = _run(work)
    deed_done()
    _print(_settings(), result, lambda: text(result))


def _act(
    method: Method[P, R],
    params: P,
    text: Callable[[R], None],
    *,
    waits: bool,
    agree: Mapping[str, Callable[[RpcError, P], P]] | None = None,
) -> None:
    """Carry out an action under its idempotency key, one that is made if none is given, and print the result.

    `waits`: the method takes a time limit, and is asked until it has ended; `agree`: by their names, the refusals that
    a person may overrule, each with what asks the person, when nothing runs, and returns what to call with then.
    """
    import msgspec

    settings, key = _settings(), ""
    if "idempotency_key" in params.__struct_fields__:
        key = getattr(params, "idempotency_key") or waiting.new_key()  # noqa: B009  (not every params has the field)
        params = msgspec.structs.replace(params, idempotency_key=key)
    overruled = agree or {}

    def once(params: P) -> R | RpcError:
        async def work(client: ControlClient, tell: Tell) -> R | RpcError:
            try:
                if not waits:
                    return await client.call(method, params)
                return await waiting.ask_until(client, method, params, settings.timeout_s, tell)
            except RpcError as error:
                if error.name not in overruled:
                    raise
                return error

        return _run(work, key=key, waits=waits)

    result = once(params)
    if isinstance(result, RpcError):
        params, overruled = overruled[result.name](result, params), {}
        result = once(params)
    assert not isinstance(result, RpcError)
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
@click.option("--yes", is_flag=True, help="Do not ask, also where the money would be lost.")
@_keyed("transfer")
def send(to: str, amount: int, key: str | None, *, yes: bool) -> None:
    """Send AMOUNT to an account or principal."""

    def agree(error: RpcError, params: schema.SendParams) -> schema.SendParams:
        import msgspec

        note(for_people(error.message))
        click.confirm(f"Send {format_icp(amount)} there all the same?", abort=True, err=True)
        return msgspec.structs.replace(params, accept_loss=True)

    _act(
        methods.WALLET_SEND,
        schema.SendParams(to=to, amount_e8s=values.PaidE8s(amount), idempotency_key=key, accept_loss=yes),
        lambda r: say(f"sent {format_icp(r.amount_e8s)} in block {r.block}"),
        waits=True,
        agree={"loses_money": agree} if sys.stdin.isatty() else None,
    )


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
            mine_e8s=values.E8s(mine),
            theirs_e8s=values.E8s(theirs),
            challenge_s=values.Seconds(challenge),
            funding_timeout_s=None if funding_timeout is None else values.Seconds(funding_timeout),
            idempotency_key=key,
            wait=wait,
        )
    )
    _act(methods.CHANNEL_OPEN, params, show.channel, waits=True)


@main.command()
@_everywhere
@click.argument("channel", type=ChannelRef())
@click.argument("amount", type=Amount())
@click.option("--memo", type=MemoText(), help="Text for the receiver, at most 256 bytes.")
@click.option("--payment-id", type=PaymentId(), metavar="HEX", help="An id of one's own, 16 bytes.")
@click.option("--wait/--no-wait", default=True, help="Wait until the peer has it, or only until it is queued.")
@_keyed("payment")
def pay(channel: str, amount: int, memo: str | None, payment_id: str | None, key: str | None, *, wait: bool) -> None:
    """Pay the peer AMOUNT through CHANNEL."""
    params = _params(
        lambda: schema.PayParams(
            channel=channel,
            amount_e8s=values.PaidE8s(amount),
            memo=memo,
            payment_id=payment_id,
            idempotency_key=key,
            wait=wait,
        )
    )
    _act(methods.CHANNEL_PAY, params, lambda r: show.paid(amount, r), waits=wait)


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
@_keyed("close")
def close(channel: str, force_after: int | None, key: str | None, *, wait: bool) -> None:
    """Close CHANNEL together with the peer; alone if it does not answer."""
    params = schema.ChannelCloseParams(
        channel=channel,
        force_after_s=None if force_after is None else values.Seconds(force_after),
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
@click.option(
    "--kind", "kinds", type=Word("event", EVENTS), multiple=True, help="Only events of this name; can be repeated."
)
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
@click.argument("method", type=Word("method", COMMANDS))
@click.argument("params", default="{}")
def call(method: str, params: str) -> None:
    """Call METHOD of the control interface with PARAMS (JSON) and print its result."""
    import msgspec

    try:
        decoded = msgspec.json.decode(params)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise click.UsageError(f"PARAMS {shown(params)} is not JSON: {error}") from None

    async def work(client: ControlClient, _: Tell) -> object:
        return await client.call(method, decoded)

    result = _run(work, otherwise_s=None)
    if method not in _LOOKS:
        deed_done()
    say_json(envelope.ENCODER.encode(result))


if __name__ == "__main__":
    main()
