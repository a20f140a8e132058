"""The configuration of a node: what `perund.toml` can say, with defaults and bounds.

The description of each key is also its comment in the file that `perund init` writes and the hint of the
error when its value is wrong.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from chain.certificate import MAINNET_ROOT_KEY
from chain.principal import principal_from_text
from perund.defaults import CANISTER_OF_ICP_LEDGER, DEFAULT_IC_URL
from protocol.errors import PerundError
from protocol.terms import network_hash
from protocol.types import MAX_INT64
from wire.address import (
    MAX_ADDRESS,
    MAX_ANNOUNCED,
    MAX_NODE_ADDRESS,
    NODE_ID_PATTERN,
    Address,
    BadAddress,
    NodeAddress,
    announced_address,
)

__all__ = [
    "FILE_NAME",
    "Alarm",
    "Close",
    "Config",
    "Fees",
    "Ic",
    "Keys",
    "Log",
    "Policy",
    "Tower",
    "Watch",
    "Wire",
    "default_min_challenge_s",
]

FILE_NAME: Final = "perund.toml"
_DAY: Final = 86_400

Url = Annotated[str, Meta(pattern=r"^https?://[^\s/]+(/[^\s]*)?$", max_length=500)]
CanisterId = Annotated[str, Meta(pattern=r"^[a-z0-9]{1,5}(-[a-z0-9]{1,5}){1,11}$", max_length=63)]
NodeIdHex = Annotated[str, Meta(pattern=rf"^{NODE_ID_PATTERN}$")]
TowerAddress = Annotated[str, Meta(pattern=rf"^{NODE_ID_PATTERN}@\S+:[0-9]{{1,5}}$", max_length=MAX_NODE_ADDRESS)]
HashHex = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
InstallNs = Annotated[int, Meta(ge=0, le=MAX_INT64)]
E8sValue = Annotated[int, Meta(ge=0)]  # the upper bound is that of perund.amounts, which reads these keys


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file."""


class Ic(_Section, frozen=True, kw_only=True):
    """The Internet Computer, or a devnet of it."""

    urls: Annotated[
        tuple[Url, ...],
        Meta(
            min_length=1, max_length=8, description="Addresses of the network, tried in order: http(s)://host[:port]."
        ),
    ] = (DEFAULT_IC_URL,)
    perun_canister: Annotated[CanisterId, Meta(description="Principal of the Perun canister.")]
    icp_ledger: Annotated[CanisterId, Meta(description="Principal of the ICP ledger.")] = CANISTER_OF_ICP_LEDGER
    root_key: Annotated[
        str,
        Meta(
            pattern="^([0-9a-f]{266})?$",
            description=(
                "Root key that certificates are checked against: 266 hex digits (DER).\n"
                'Empty on "ic": the one of the Internet Computer is built in. On "local" it was read once, at init.'
            ),
        ),
    ] = ""
    module_hashes: Annotated[
        tuple[HashHex, ...],
        Meta(
            max_length=32,
            description=(
                "SHA-256 of the canister modules that channels may be opened on, 64 hex digits each.\n"
                'On "ic" no channel is opened while the list is empty. On "local" an empty list allows any.'
            ),
        ),
    ] = ()
    trusted_installs: Annotated[
        tuple[InstallNs, ...],
        Meta(
            max_length=32,
            description=(
                "Installations of the canister that brought no other code and are trusted all the same, as the alarm\n"
                "canister.installed_again tells their time (ns since 1970): each may have rolled channels back."
            ),
        ),
    ] = ()

    def __post_init__(self) -> None:
        for name, text in (("perun_canister", self.perun_canister), ("icp_ledger", self.icp_ledger)):
            try:
                principal_from_text(text)
            except (ValueError, PerundError) as error:
                raise ValueError(f"`{name}` is {text!a}: {error}") from error


class Wire(_Section, frozen=True, kw_only=True):
    """Connections to peers."""

    listen: Annotated[
        str,
        Meta(
            pattern=r"^\S+:[0-9]{1,5}$|^$",
            max_length=MAX_ADDRESS,
            description='Where peers reach this node, host:port ("0.0.0.0:9735": from everywhere). Empty: only dial.',
        ),
    ] = "127.0.0.1:9735"
    announce: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^(listen|\S+:[0-9]{1,5})$", max_length=MAX_ADDRESS)], ...],
        Meta(
            max_length=MAX_ANNOUNCED,
            description=(
                "Where peers are told to dial this node, host:port each, at most 8, names too: they find it there\n"
                'after a move. Add a new address before. "listen": where it listens, if that is a public IP address.\n'
                "Empty: nothing is said. A watchtower does not read it."
            ),
        ),
    ] = ("listen",)
    max_connections: Annotated[
        int, Meta(ge=1, le=10_000, description="Connections with peers at the same time, 1 to 10000.")
    ] = 200
    reconnect_min_s: Annotated[
        int, Meta(ge=1, le=3_600, description="First pause before a peer is dialled again, 1 to 3600 seconds.")
    ] = 1
    reconnect_max_s: Annotated[
        int, Meta(ge=1, le=3_600, description="Longest such pause; it doubles until then. 1 to 3600 seconds.")
    ] = 60

    def __post_init__(self) -> None:
        if self.reconnect_min_s > self.reconnect_max_s:
            raise ValueError(
                f"`reconnect_min_s` is {self.reconnect_min_s}, above `reconnect_max_s` {self.reconnect_max_s}"
            )
        if self.listen:
            try:
                Address.to_listen_on(self.listen)
            except BadAddress as error:
                raise ValueError(f"`listen` is {self.listen!a}: {error}") from error
        if len(set(self.announce)) != len(self.announce):
            raise ValueError("`announce` has the same address twice")
        for text in self.announce:
            try:
                if text != "listen":
                    address = Address.of(text)
                    announced_address(address.host, address.port)
            except BadAddress as error:
                raise ValueError(f"`announce` has {text!a}: {error}") from error


class Policy(_Section, frozen=True, kw_only=True):
    """What this node agrees to when a peer proposes a channel."""

    accept: Annotated[bool, Meta(description="Whether peers may propose channels at all: true or false.")] = True
    peers_allowed: Annotated[
        tuple[NodeIdHex, ...],
        Meta(max_length=10_000, description="Node ids that may propose channels, 66 hex digits each. Empty: anybody."),
    ] = ()
    max_channels: Annotated[
        int, Meta(ge=0, le=1_000_000, description="Channels with money that are not closed yet, 0 to 1000000.")
    ] = 10_000
    max_channels_per_peer: Annotated[
        int, Meta(ge=0, le=1_000_000, description="The same with one peer, 0 to 1000000.")
    ] = 100
    max_unfunded: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000,
            description=(
                "Channels that peers without money here have proposed and not paid into yet, in all, 0 to 10000.\n"
                "Those with money are counted by max_channels. 0: no channels with peers that have none."
            ),
        ),
    ] = 100
    max_unfunded_per_peer: Annotated[int, Meta(ge=0, le=10_000, description="The same of one peer, 0 to 10000.")] = 10
    max_unfunded_per_address: Annotated[
        int,
        Meta(ge=0, le=10_000, description="The same from one IP address (of IPv6: a network of 64 bits), 0 to 10000."),
    ] = 50
    unfunded_place_s: Annotated[
        int,
        Meta(
            ge=10,
            le=43_200,
            description=(
                "Seconds after which such a channel, signed and not paid into, is not counted there any more,\n"
                "10 to 43200. It can still be paid into until its funding deadline."
            ),
        ),
    ] = 600
    min_total_e8s: Annotated[
        E8sValue,
        Meta(
            description=(
                'Least money of both sides in a channel: e8s, or a text such as "0.1 ICP". Also what a peer has to\n'
                "have in a channel to count as one with money, whose connection has a place of its own."
            )
        ),
    ] = 1_000_000
    max_total_e8s: Annotated[
        E8sValue, Meta(description='Most money of both sides in a channel: e8s, or a text such as "10000 ICP".')
    ] = 1_000_000_000_000
    contribute_max_e8s: Annotated[
        E8sValue,
        Meta(
            description=(
                'Most that this node puts in itself when a peer proposes: e8s, or a text such as "194 ICP".\n'
                "Above 0 strangers can tie up this money: name them in peers_allowed."
            )
        ),
    ] = 0
    minimum_payment_e8s: Annotated[
        E8sValue, Meta(description="Smallest payment that is taken, announced to peers: e8s or a text, at least 1.")
    ] = 1
    min_challenge_s: Annotated[
        int,
        Meta(
            ge=1,
            le=365 * _DAY,
            description=(
                "Shortest challenge period, 1 second to 365 days, in seconds: the time that this node has to refute\n"
                "a stale state, so longer than it is ever switched off or cut off."
            ),
        ),
    ] = 3_600
    max_challenge_s: Annotated[
        int,
        Meta(
            ge=1,
            le=365 * _DAY,
            description="Longest challenge period, in seconds: how long money waits when a peer disappears.",
        ),
    ] = 7 * _DAY

    def __post_init__(self) -> None:
        if self.min_challenge_s > self.max_challenge_s:
            raise ValueError(
                f"`min_challenge_s` is {self.min_challenge_s}, above `max_challenge_s` {self.max_challenge_s}"
            )
        if self.min_total_e8s > self.max_total_e8s:
            raise ValueError(f"`min_total_e8s` is {self.min_total_e8s}, above `max_total_e8s` {self.max_total_e8s}")
        if self.minimum_payment_e8s < 1:
            raise ValueError("`minimum_payment_e8s` is 0; the smallest payment is 1 e8s")


class Watch(_Section, frozen=True, kw_only=True):
    """How the canister is watched."""

    looks_per_challenge: Annotated[
        int,
        Meta(ge=3, le=100, description="Certified looks at a channel in each challenge period, 3 to 100."),
    ] = 6
    interval_s: Annotated[
        int,
        Meta(
            ge=1,
            le=600,
            description="Seconds between cheap queries, which may start a certified look before it is due, 1 to 600.",
        ),
    ] = 2
    towers: Annotated[
        tuple[TowerAddress, ...],
        Meta(
            max_length=16,
            description=(
                "Watchtowers that guard this node's channels too, NODEID@host:port each, at most 16.\n"
                "A tower sees the balances of every channel; it never learns a key."
            ),
        ),
    ] = ()

    def __post_init__(self) -> None:
        ids = [tower.partition("@")[0] for tower in self.towers]
        if len(set(ids)) != len(ids):
            raise ValueError("`towers` has the same node id twice")
        for tower in self.towers:
            try:
                NodeAddress.of(tower)
            except BadAddress as error:
                raise ValueError(f"`towers` has {tower!a}: {error}") from error


class Tower(_Section, frozen=True, kw_only=True):
    """What `perund watchtower` does for others. A node does not read it."""

    clients: Annotated[
        tuple[NodeIdHex, ...],
        Meta(max_length=100_000, description="Node ids that are served, 66 hex digits each. Empty: anybody."),
    ] = ()
    max_clients: Annotated[int, Meta(ge=1, le=1_000_000, description="Nodes that are served, 1 to 1000000.")] = 1_000
    max_channels: Annotated[
        int, Meta(ge=1, le=10_000_000, description="Channels in all, counted for each client, 1 to 10000000.")
    ] = 100_000
    max_channels_per_client: Annotated[
        int, Meta(ge=1, le=10_000_000, description="Channels of one client, 1 to 10000000.")
    ] = 10_000
    max_unfunded: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="Channels of clients that have not shown money in any yet, all together, 1 to 1000000.",
        ),
    ] = 1_000
    max_unfunded_per_address: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description=(
                "The same of clients without money from one IP address (of IPv6: a network of 64 bits), 1 to 1000000."
            ),
        ),
    ] = 250
    max_unfunded_per_client: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Channels of one client that have not shown money yet, 1 to 1000000.")
    ] = 100
    min_challenge_s: Annotated[
        int,
        Meta(
            ge=1,
            le=365 * _DAY,
            description="Shortest challenge period that is guarded, in seconds: longer than this tower is ever away.",
        ),
    ] = 60
    max_challenge_s: Annotated[
        int, Meta(ge=1, le=365 * _DAY, description="Longest challenge period that is guarded, in seconds.")
    ] = 365 * _DAY
    min_total_e8s: Annotated[
        E8sValue, Meta(description='Least money of both sides in a channel: e8s, or a text such as "0.1 ICP".')
    ] = 0
    max_total_e8s: Annotated[
        E8sValue, Meta(description="Most money of both sides in a channel: e8s or a text. 0: any amount.")
    ] = 0
    funding_s: Annotated[
        int,
        Meta(
            ge=60, le=30 * _DAY, description="Seconds that money has to appear in a channel, else its slot is dropped."
        ),
    ] = 43_200
    receipt_s: Annotated[
        int, Meta(ge=60, le=365 * _DAY, description="Seconds that a receipt for a funded channel holds.")
    ] = 30 * _DAY
    grace_s: Annotated[
        int, Meta(ge=0, le=365 * _DAY, description="Seconds that a settled channel is remembered, 0 to 31536000.")
    ] = _DAY

    def __post_init__(self) -> None:
        if self.min_challenge_s > self.max_challenge_s:
            raise ValueError(
                f"`min_challenge_s` is {self.min_challenge_s}, above `max_challenge_s` {self.max_challenge_s}"
            )
        if 0 < self.max_total_e8s < self.min_total_e8s:
            raise ValueError(f"`min_total_e8s` is {self.min_total_e8s}, above `max_total_e8s` {self.max_total_e8s}")


class Alarm(_Section, frozen=True, kw_only=True):
    """Who is told of alarms, besides the log, the event stream and `perun health`."""

    command: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^[^\x00]*$")], ...],
        Meta(
            max_length=64,
            description=(
                'Program with its arguments, ["/usr/local/bin/page-me", "channels"], run for each alarm without a\n'
                "shell. It gets one JSON object on standard input, and 30 seconds. Empty: none."
            ),
        ),
    ] = ()
    webhook: Annotated[
        str,
        Meta(
            pattern=r"^(https?://[^\s/]+(/[^\s]*)?)?$",
            max_length=2_000,
            description="Address that the same JSON object is posted to, http(s)://host/path, three tries. Empty: none",
        ),
    ] = ""
    patience_s: Annotated[
        int,
        Meta(
            ge=1,
            le=_DAY,
            description=(
                "Seconds that a payment, a tower or an answer of the Internet Computer may take before `perun health`\n"
                "calls it a problem, 1 to 86400. A peer that is away, a deposit, a close, a withdrawal: ten times that."
            ),
        ),
    ] = 60


class Fees(_Section, frozen=True, kw_only=True):
    """What a call of the ledger may cost."""

    max_fee_e8s: Annotated[
        E8sValue,
        Meta(
            description='Highest fee of one transfer that is paid without asking: e8s, or a text such as "0.001 ICP".'
        ),
    ] = 100_000


class Close(_Section, frozen=True, kw_only=True):
    """How channels end."""

    force_after_s: Annotated[
        int,
        Meta(
            ge=1,
            le=30 * _DAY,
            description="Seconds that the peer has to close together before it is done alone, 1 to 2592000.",
        ),
    ] = 600


class Keys(_Section, frozen=True, kw_only=True):
    """The key store."""

    passphrase_file: Annotated[
        str,
        Meta(
            pattern=r"^[^\x00]*$",
            max_length=4_096,
            description="File whose first line opens the key store. Empty: option, environment or prompt.",
        ),
    ] = ""


class Log(_Section, frozen=True, kw_only=True):
    """What is logged, on standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description='"debug", "info", "warning" or "error".')
    ] = "info"
    format: Annotated[
        Literal["auto", "console", "json"],
        Meta(description='"console" for people, "json" for programs; "auto": console on a terminal, else json.'),
    ] = "auto"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that a node is told. Values are checked; amounts are e8s, durations seconds."""

    network: Annotated[
        Literal["local", "ic"],
        Meta(description='"ic" for the Internet Computer, "local" for a devnet. Channels never move between networks.'),
    ]
    ic: Ic
    wire: Wire = Wire()
    policy: Policy = Policy()
    watch: Watch = Watch()
    tower: Tower = Tower()
    alarm: Alarm = Alarm()
    fees: Fees = Fees()
    close: Close = Close()
    keys: Keys = Keys()
    log: Log = Log()

    def __post_init__(self) -> None:
        if self.network == "ic":
            if self.ic.root_key not in {"", MAINNET_ROOT_KEY.hex()}:
                raise ValueError(
                    '`ic.root_key` is not the one of the Internet Computer; leave it empty on network "ic"'
                )
            for url in self.ic.urls:
                if not url.startswith("https://"):
                    raise ValueError(f'`ic.urls` has {url!a}; on network "ic" addresses start with https://')
        elif not self.ic.root_key:
            # The mainnet key would be the wrong one, and asking at each start would trust whoever answers.
            raise ValueError("`ic.root_key` is empty; `perund init` reads it once from a devnet, or take --root-key")

    @property
    def network_hash(self) -> bytes:
        """32 bytes that name the network: its root key, the Perun canister and the ledger."""
        return network_hash(
            self.root_key, principal_from_text(self.ic.perun_canister), principal_from_text(self.ic.icp_ledger)
        )

    @property
    def root_key(self) -> bytes:
        """DER of the root key that certificates are checked against (133 bytes)."""
        return MAINNET_ROOT_KEY if self.network == "ic" else bytes.fromhex(self.ic.root_key)


def default_min_challenge_s(network: str) -> int:
    """Shortest challenge period that is agreed to by default: on a devnet time is cheap, with money it is not."""
    return 60 if network == "local" else 3_600
