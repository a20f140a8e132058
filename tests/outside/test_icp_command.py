"""The `icp` command takes the devnet for the Internet Computer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from chain.identity import Ed25519Identity, Secp256k1Identity, load_identity, save_identity
from chain.principal import account_identifier, account_to_text, principal_from_text, principal_to_text
from devnet.code import interface_file
from perund.demo.processes import DevnetProcess
from protocol.types import Params, SignedState
from tests.outside.channel import FEE_E8S, Channel
from tests.outside.icp import Icp, IcpFailed, blob, blobs

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(400)]

IDENTITIES: dict[str, Callable[[bytes], Ed25519Identity | Secp256k1Identity]] = {
    "ed25519": Ed25519Identity,
    "secp256k1": Secp256k1Identity,
}


async def test_it_finds_the_network_healthy(icp: Icp, devnet: DevnetProcess) -> None:
    pinged = json.loads(await icp.run("network", "ping", devnet.url, "--wait-healthy"))
    assert pinged["replica_health_status"] == "healthy"
    assert bytes(pinged["root_key"]).hex() == devnet.root_key


async def test_queries_and_certified_calls(icp: Icp, devnet: DevnetProcess) -> None:
    assert await icp.query(devnet.icp_ledger, "symbol", "()") == '(record { symbol = "ICP" })'
    assert await icp.call(devnet.icp_ledger, "icrc1_fee", "()") == "(10_000 : nat)"
    unknown = f"({blob(bytes(64))})"
    assert await icp.query(devnet.perun_canister, "query_state", unknown) == "(null)"
    assert await icp.call(devnet.perun_canister, "query_state", unknown) == "(null)"
    empty = await icp.query(devnet.perun_canister, "disputes_since", "(0 : nat64, 10 : nat32)")
    assert "entries = vec" in empty


async def test_a_wrong_root_key_is_noticed(icp: Icp, devnet: DevnetProcess) -> None:
    with pytest.raises(IcpFailed, match=r"(?i)certificate verification failed|signature verification failed"):
        await icp.run(
            "canister", "call", "-n", devnet.url, "-k", "mainnet", "--identity", "anonymous",
            devnet.icp_ledger, "icrc1_fee", "()",
        )  # fmt: skip


async def test_rejections_are_shown(icp: Icp, devnet: DevnetProcess) -> None:
    with pytest.raises(IcpFailed, match=r"has no update method 'subtract'.*IC0536"):
        await icp.call(devnet.perun_canister, "subtract", "()")
    with pytest.raises(IcpFailed, match="IC0503"):
        await icp.call(devnet.icp_ledger, "account_balance", f"(record {{account = {blob(b'short')}}})")
    with pytest.raises(IcpFailed, match=r"IC0301|not found"):
        await icp.call("uxrrr-q7777-77774-qaaaq-cai", "symbol", "()")


async def test_what_runs_in_the_canister(icp: Icp, devnet: DevnetProcess) -> None:
    published = await icp.on_network("canister", "metadata", devnet.perun_canister, "candid:service")
    assert published.strip() == interface_file("perun.did").strip()
    # Without `--public` it asks the management canister first, and is told that only controllers may.
    for options in (("--json", "--public"), ("--json",)):
        status = json.loads(
            await icp.on_network("canister", "status", devnet.perun_canister, "--identity", "anonymous", *options)
        )
        assert status["id"] == devnet.perun_canister
        assert status["controllers"] == []
        assert len(bytes.fromhex(status["module_hash"].removeprefix("0x"))) == 32


@pytest.mark.parametrize("kind", sorted(IDENTITIES))
async def test_it_reads_our_identities(icp: Icp, tmp_path: Path, kind: str) -> None:
    ours = IDENTITIES[kind](bytes(range(1, 33)))
    await take_in(icp, tmp_path, "alice", ours)
    assert (await icp.run("identity", "principal", "--identity", "alice")).strip() == principal_to_text(ours.sender)
    account = (await icp.run("identity", "account-id", "--identity", "alice")).strip()
    assert account == account_to_text(account_identifier(ours.sender))
    # And what it gives out is what it took in.
    returned = tmp_path / "returned.pem"
    returned.write_text(await icp.run("identity", "export", "alice"))
    assert load_identity(returned).sender == ours.sender


@pytest.mark.parametrize("kind", sorted(IDENTITIES))
async def test_we_read_its_identities(icp: Icp, tmp_path: Path, kind: str) -> None:
    """From a phrase, as `icp` makes them: `identity new` knows no other way than secp256k1."""
    phrase, pem = tmp_path / "phrase", tmp_path / "exported.pem"
    await icp.run("identity", "new", "--storage", "plaintext", "maker", "--output-seed", str(phrase))
    await icp.run(
        "identity", "import", "--storage", "plaintext", "--from-seed-file", str(phrase), "--seed-curve", kind, "alice"
    )
    pem.write_text(await icp.run("identity", "export", "alice"))
    read = load_identity(pem)
    assert isinstance(read, {"ed25519": Ed25519Identity, "secp256k1": Secp256k1Identity}[kind])
    assert (await icp.run("identity", "principal", "--identity", "alice")).strip() == principal_to_text(read.sender)


async def test_tokens(icp: Icp, devnet: DevnetProcess, tmp_path: Path) -> None:
    alice = Ed25519Identity(bytes(range(2, 34)))
    await take_in(icp, tmp_path, "alice", alice)
    await devnet.mint(principal_to_text(alice.sender), 300_000_000)
    receiver = account_to_text(account_identifier(Ed25519Identity(bytes(range(3, 35))).sender))
    await icp.on_network("token", "transfer", "--identity", "alice", "1.25", receiver)
    left = json.loads(await icp.on_network("token", "balance", "--identity", "alice", "--json"))
    assert left["balance"] == "1.74990000 ICP"


async def test_a_channel_from_funding_to_payout(icp: Icp, devnet: DevnetProcess, tmp_path: Path) -> None:
    channel, perun, ledger = Channel.new(), devnet.perun_canister, devnet.icp_ledger
    alice, bob = Ed25519Identity(bytes(range(4, 36))), Secp256k1Identity(bytes(range(5, 37)))
    shares = (90_000_000, 60_000_000)
    users: tuple[tuple[str, Ed25519Identity | Secp256k1Identity], ...] = (("alice", alice), ("bob", bob))
    for place, (name, identity) in enumerate(users):
        funding = channel.funding(0 if place == 0 else 1)
        await take_in(icp, tmp_path, name, identity)
        await devnet.mint(principal_to_text(identity.sender), shares[place] + FEE_E8S)
        paid = await icp.call(
            ledger,
            "transfer",
            f"(record {{memo = {funding.memo} : nat64; amount = record {{e8s = {shares[place]} : nat64}}; "
            f"fee = record {{e8s = {FEE_E8S} : nat64}}; from_subaccount = null; "
            f"to = {blob(account_identifier(principal_from_text(perun)))}; created_at_time = null}})",
            by=name,
        )
        block = int(paid.split("Ok = ")[1].split(" ")[0].replace("_", ""))
        notified = await icp.call(perun, "transaction_notification", f"({block} : nat64)")
        assert notified == f"(variant {{ Ok = {shares[place]:_} : nat }})"
        who = f"(record {{channel = {blob(funding.channel)}; participant = {blob(funding.participant)}}})"
        assert await icp.call(perun, "deposit", who) == "(null)"
        assert await icp.call(perun, "query_holdings", who) == f"(opt ({shares[place]:_} : nat))"

    # They pay each other out of sight; the last state is the one that counts.
    assert await icp.call(perun, "dispute", registration(channel.params, channel.signed(3, shares))) == "(null)"
    final = channel.signed(7, (50_000_000, 100_000_000), finalized=True)
    forged = SignedState(final.state, (final.signatures[0], final.signatures[0]))
    refused = await icp.call(perun, "conclude", registration(channel.params, forged))
    assert refused == "(opt variant { Authentication })"
    assert await icp.call(perun, "conclude", registration(channel.params, final)) == "(null)"
    settled = await icp.query(perun, "query_state", f"({blob(channel.id)})")
    assert "version = 7 : nat64" in settled
    assert "finalized = true" in settled
    events = await icp.query(perun, "query_events", f"({blob(channel.id)}, 0 : nat64)")
    assert [events.count(kind) for kind in ("Funded", "Disputed", "Concluded")] == [2, 1, 1]

    for place, (_, identity) in enumerate(users):
        request, signature = channel.withdrawal(0 if place == 0 else 1, identity.sender)
        taken = await icp.call(
            perun,
            "withdraw",
            f"(record {{funding = record {{channel = {blob(request.funding.channel)}; "
            f"participant = {blob(request.funding.participant)}}}; "
            f'receiver = principal "{principal_to_text(identity.sender)}"}}, {blob(signature)})',
        )
        assert taken.startswith("(opt (")
        assert taken.endswith(", null)")
        owner = f'(record {{owner = principal "{principal_to_text(identity.sender)}"; subaccount = null}})'
        arrived = final.state.allocation[place] - FEE_E8S
        assert await icp.query(ledger, "icrc1_balance_of", owner) == f"({arrived:_} : nat)"


async def take_in(icp: Icp, folder: Path, name: str, identity: Ed25519Identity | Secp256k1Identity) -> None:
    """Have the command know an identity from a file that we wrote."""
    pem = folder / f"{name}.pem"
    await asyncio.to_thread(save_identity, identity, pem)
    await icp.run("identity", "import", "--storage", "plaintext", "--from-pem", str(pem), name)


def registration(params: Params, signed: SignedState) -> str:
    """Return params and signed state as the argument of `dispute` and `conclude`."""
    state = signed.state
    allocation = "; ".join(f"{amount} : nat" for amount in state.allocation)
    return (
        f"(record {{nonce = {blob(params.nonce)}; participants = {blobs(params.participants)}; "
        f"challenge_duration = {params.challenge_duration_ns} : nat64}}, "
        f"record {{state = record {{channel = {blob(state.channel)}; version = {state.version} : nat64; "
        f"allocation = vec {{{allocation}}}; finalized = {str(state.finalized).lower()}}}; "
        f"sigs = {blobs(signed.signatures)}}})"
    )
