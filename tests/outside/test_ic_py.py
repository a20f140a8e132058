"""ic-py takes the devnet for the Internet Computer: a channel's whole life."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any

import pytest

from chain.principal import account_identifier, principal_from_text, principal_to_text
from devnet.code import interface_file
from perund.demo.processes import DevnetProcess
from protocol.types import Params, ParticipantIndex, SignedState
from tests.outside.channel import FEE_E8S, Channel

# ic-py has no types.
Agent: Any = import_module("ic.agent").Agent
Canister: Any = import_module("ic.canister").Canister
Client: Any = import_module("ic.client").Client
Identity: Any = import_module("ic.identity").Identity
Principal: Any = import_module("ic.principal").Principal
system_state: Any = import_module("ic.system_state")

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(400),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


class User:
    """Somebody with ic-py, who takes the canisters' interfaces from the network. Its calls block."""

    def __init__(self, devnet: DevnetProcess, identity: Any) -> None:
        self.agent = Agent(identity, Client(url=devnet.url))
        self.principal = principal_from_text(self.agent.get_principal().to_str())
        self.perun = Canister(agent=self.agent, canister_id=devnet.perun_canister)
        self.ledger = Canister(agent=self.agent, canister_id=devnet.icp_ledger, candid=interface_file("ledger.did"))


async def test_a_channel_from_funding_to_payout(devnet: DevnetProcess) -> None:
    channel, shares = Channel.new(), (90_000_000, 60_000_000)
    alice = await asyncio.to_thread(User, devnet, Identity(type="ed25519"))
    bob = await asyncio.to_thread(User, devnet, Identity(type="secp256k1"))
    for user, share in zip((alice, bob), shares, strict=True):
        await devnet.mint(principal_to_text(user.principal), share + FEE_E8S)
    await asyncio.to_thread(live_through, channel, (alice, bob), shares, principal_from_text(devnet.perun_canister))


def live_through(channel: Channel, users: tuple[User, User], shares: tuple[int, int], perun: bytes) -> None:
    alice, _ = users
    places: tuple[ParticipantIndex, ParticipantIndex] = (0, 1)
    for place in places:
        user, share, funding = users[place], shares[place], channel.funding(place)
        paid = user.ledger.transfer(
            {
                "memo": funding.memo,
                "amount": {"e8s": share},
                "fee": {"e8s": FEE_E8S},
                "from_subaccount": [],
                "to": account_identifier(perun),
                "created_at_time": [],
            }
        )
        assert user.perun.transaction_notification(paid[0]["Ok"]) == [{"Ok": share}]
        who = {"channel": funding.channel, "participant": funding.participant}
        assert user.perun.deposit(who) == [[]]
        assert user.perun.query_holdings(who) == [[share]]

    assert alice.perun.dispute(*registration(channel.params, channel.signed(3, shares))) == [[]]
    final = channel.signed(7, (50_000_000, 100_000_000), finalized=True)
    forged = SignedState(final.state, (final.signatures[1], final.signatures[1]))
    assert alice.perun.conclude(*registration(channel.params, forged)) == [[{"Authentication": None}]]
    assert alice.perun.conclude(*registration(channel.params, final)) == [[]]
    (settled,) = alice.perun.query_state(channel.id)[0]
    assert (settled["state"]["version"], settled["state"]["finalized"]) == (7, True)
    assert settled["state"]["allocation"] == list(final.state.allocation)
    kinds = [next(iter(event)) for event in alice.perun.query_events(channel.id, 0)[0]]
    assert kinds == ["Funded", "Funded", "Disputed", "Concluded"]

    for place in places:
        user = users[place]
        request, signature = channel.withdrawal(place, user.principal)
        who = {"channel": request.funding.channel, "participant": request.funding.participant}
        block, error = user.perun.withdraw({"funding": who, "receiver": user.principal}, signature)
        assert (len(block), error) == (1, [])
        balance = user.ledger.account_balance({"account": account_identifier(user.principal)})
        assert balance == [{"e8s": final.state.allocation[place] - FEE_E8S}]


async def test_certified_state(devnet: DevnetProcess) -> None:
    user = await asyncio.to_thread(User, devnet, Identity(anonymous=True))

    def session() -> None:
        assert user.perun.candid == interface_file("perun.did")
        perun, subnet = devnet.perun_canister, Principal.self_authenticating(bytes.fromhex(devnet.root_key)).to_str()
        assert len(bytes.fromhex(system_state.canister_module_hash(user.agent, perun))) == 32
        assert system_state.canister_controllers(user.agent, perun) == []
        assert system_state.subnet_public_key(user.agent, perun, subnet) == devnet.root_key
        assert system_state.time(user.agent, perun) > 10**18

    await asyncio.to_thread(session)


def registration(params: Params, signed: SignedState) -> tuple[dict[str, object], dict[str, object]]:
    """Return params and signed state as the arguments of `dispute` and `conclude`."""
    state = signed.state
    return (
        {
            "nonce": params.nonce,
            "participants": list(params.participants),
            "challenge_duration": params.challenge_duration_ns,
        },
        {
            "state": {
                "channel": state.channel,
                "version": state.version,
                "allocation": list(state.allocation),
                "finalized": state.finalized,
            },
            "sigs": list(signed.signatures),
        },
    )
