"""The JavaScript agent takes the devnet for the Internet Computer, with every signature checked."""

from __future__ import annotations

import time

import pytest

from chain.identity import Ed25519Identity
from chain.principal import account_identifier, principal_from_text, principal_to_text
from devnet.code import interface_file
from perund.demo.processes import DevnetProcess
from protocol.encoding import encode_withdrawal_request
from protocol.types import ParticipantIndex, State
from tests.outside.channel import FEE_E8S, Channel
from tests.outside.javascript import JavaScript

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(400)]


async def test_a_channel_from_funding_to_payout(javascript: JavaScript, devnet: DevnetProcess) -> None:
    channel, shares = Channel.new(), (90_000_000, 60_000_000)
    participants = [await participant(channel, 0, shares[0], devnet), await participant(channel, 1, shares[1], devnet)]
    earlier, final = State(channel.id, 3, shares, False), State(channel.id, 7, (50_000_000, 100_000_000), True)
    seen = await javascript.run(
        "channel.mjs",
        channel=channel.id.hex(),
        nonce=channel.params.nonce.hex(),
        challengeNs=str(channel.params.challenge_duration_ns),
        perunAccount=account_identifier(principal_from_text(devnet.perun_canister)).hex(),
        participants=participants,
        earlier=described(earlier),
        final=described(final),
    )
    assert seen["notified"] == [{"Ok": str(share)} for share in shares]
    assert seen["deposited"] == [[], []]
    assert seen["holdings"] == seen["certifiedHoldings"] == [[str(share)] for share in shares]
    assert seen["disputed"] == []
    assert seen["registered"] == "3"
    assert seen["encodersDiffer"]
    assert seen["refused"] == [{"Authentication": None}]
    assert seen["concluded"] == []
    assert seen["events"] == ["Funded", "Funded", "Disputed", "Concluded"]
    assert [len(block) for block, _ in seen["paidOut"]] == [1, 1]
    assert [error for _, error in seen["paidOut"]] == [[], []]
    assert seen["balances"] == [str(amount - FEE_E8S) for amount in final.allocation]


async def test_certified_state(javascript: JavaScript, devnet: DevnetProcess) -> None:
    seen = await javascript.run("state.mjs", seed=bytes(range(32)).hex())
    canister, subnet, older = seen["canister"], seen["subnet"], seen["older"]
    assert seen["healthy"] == "healthy"
    assert seen["fetchedRootKey"] == subnet["key"] == older["key"] == devnet.root_key
    for certified in (canister, subnet):
        assert abs(certified["time"] - time.time() * 1000) < 30_000
    assert abs(seen["millisecondsApart"]) < 30_000
    assert len(bytes.fromhex(canister["hash"])) == 32
    assert older["hash"] == canister["hash"]
    assert older["controllers"] == canister["controllers"] == []
    assert older["candid"] == canister["candid"] == interface_file("perun.did")
    assert canister["nothing"] == "Absent"
    assert subnet["hosts"]
    assert older["subnet"] == subnet["ofCanister"] == subnet["id"]
    assert older["nodes"] == subnet["nodes"] == 1
    assert older["ranges"] >= 1


async def test_refusals(javascript: JavaScript) -> None:
    seen = await javascript.run("refusals.mjs")
    assert "Invalid signature" in seen["callUnderAnotherRoot"]["message"]
    assert "Invalid signature" in seen["queryUnderAnotherRoot"]["message"]
    assert "the account is no account identifier" in seen["trap"]["message"]
    assert "IC0536" in seen["noSuchMethod"]["message"]
    assert seen["noSuchCanister"]["name"] == "IC0301"


async def participant(channel: Channel, of: ParticipantIndex, share: int, devnet: DevnetProcess) -> dict[str, str]:
    """Return what the script needs of a participant, whose wallet has its share and the fee."""
    seed = (b"wallet" + channel.id)[:31] + bytes([of])
    wallet = Ed25519Identity(seed)
    request, _ = channel.withdrawal(of, wallet.sender)
    await devnet.mint(principal_to_text(wallet.sender), share + FEE_E8S)
    return {
        "seed": seed.hex(),
        "receiver": principal_to_text(wallet.sender),
        "keySeed": channel.seeds[of].hex(),
        "key": channel.params.participants[of].hex(),
        "share": str(share),
        "memo": str(channel.funding(of).memo),
        "withdrawal": encode_withdrawal_request(request).hex(),
    }


def described(state: State) -> dict[str, object]:
    return {
        "version": str(state.version),
        "allocation": [str(amount) for amount in state.allocation],
        "finalized": state.finalized,
        "encoded": state.encoded.hex(),
    }
