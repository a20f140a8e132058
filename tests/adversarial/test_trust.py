"""Whose code a channel is opened on: the list of module hashes, the alarm when code or controllers change."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from chain.errors import InterfaceMismatch, InterfaceUnknown, LyingReplica
from devnet.network import PERUN_CANISTER_ID
from devnet.perun import PerunModule
from tests.adversarial.house import ICP, House
from tests.adversarial.inhabitant import Inhabitant

OTHER: bytes = hashlib.sha256(b"other code").digest()
STRANGER: bytes = b"stranger".ljust(28, b".") + b"\x02"


def perun(house: House) -> PerunModule:
    module = house.module(PERUN_CANISTER_ID)
    assert isinstance(module, PerunModule)
    return module


def alarms(node: Inhabitant) -> list[dict[str, str | int | bool]]:
    events = node.services.store.read.events(0, 1000)
    return [event.data for event in events if event.kind == "canister.code_changed"]


async def test_on_a_local_network_an_empty_list_allows_the_code_that_is_there(alice: Inhabitant) -> None:
    assert "not checked yet" in (alice.trust.reason_not_to_open() or "")
    await alice.trust.check()
    assert alice.trust.reason_not_to_open() is None
    seen = alice.services.store.read.code_seen()
    assert seen is not None
    assert (seen.module_hash, seen.controllers, seen.changed) == (perun(alice.house).module_hash, (), False)


async def test_code_that_is_not_listed_is_refused(house: House, tmp_path: Path) -> None:
    node = Inhabitant(house, tmp_path / "n", module_hashes=(OTHER.hex(),)).start()
    await node.trust.check()
    assert "is not in ic.module_hashes" in (node.trust.reason_not_to_open() or "")
    await node.stop()


async def test_other_code_is_an_alarm_and_stops_openings_until_it_is_listed(house: House, tmp_path: Path) -> None:
    alice = Inhabitant(house, tmp_path / "n").start()
    await alice.open()
    await alice.trust.check()
    before, perun(house).module_hash = perun(house).module_hash, OTHER
    await alice.trust.check()
    (alarm,) = alarms(alice)
    assert (alarm["was"], alarm["is"], alarm["alarm"]) == (before.hex(), OTHER.hex(), True)
    assert OTHER.hex() in (alice.trust.reason_not_to_open() or "")
    await alice.trust.check()
    assert len(alarms(alice)) == 1, "one change is one alarm"
    # The channel that exists is watched as before, and gets its money out.
    await alice.services.watcher.look(alice.driver.channel.id)
    alice.driver.perform(alice.driver.channel.close(alice.services.time.now(), "the code has changed"))
    await alice.closed()

    again = await alice.crash()  # the memory of it outlives the node, and an empty list no longer allows everything
    await again.trust.check()
    assert "have changed" in (again.trust.reason_not_to_open() or "")
    await again.stop()
    listed = Inhabitant(house, again.directory, module_hashes=(OTHER.hex(),))
    await listed.trust.check()
    assert listed.trust.reason_not_to_open() is None
    assert len(alarms(listed)) == 1
    await listed.stop()


async def test_a_change_while_the_node_was_off_is_an_alarm_at_its_start(house: House, tmp_path: Path) -> None:
    alice = Inhabitant(house, tmp_path / "n").start()
    await alice.trust.check()
    later = await alice.crash()
    perun(house).module_hash = OTHER
    await later.trust.check()
    assert [alarm["is"] for alarm in alarms(later)] == [OTHER.hex()]
    await later.stop()


async def test_other_controllers_are_an_alarm(alice: Inhabitant, house: House) -> None:
    await alice.trust.check()
    house.network.replica.tree.controllers[PERUN_CANISTER_ID] = (STRANGER, b"")
    await alice.trust.check()
    (alarm,) = alarms(alice)
    assert alarm["controllers_were"] == "nobody"
    assert str(alarm["controllers_are"]).startswith("aaaaa-aa ")
    assert "have changed" in (alice.trust.reason_not_to_open() or "")
    await alice.trust.check()
    assert len(alarms(alice)) == 1


async def test_a_listed_code_stays_allowed_when_its_controllers_change(house: House, tmp_path: Path) -> None:
    node = Inhabitant(house, tmp_path / "n", module_hashes=(perun(house).module_hash.hex(),)).start()
    await node.trust.check()
    house.network.replica.tree.controllers[PERUN_CANISTER_ID] = (STRANGER,)
    await node.trust.check()
    assert len(alarms(node)) == 1
    assert node.trust.reason_not_to_open() is None
    await node.stop()


async def test_a_canister_with_another_interface_is_refused_by_what_differs(alice: Inhabitant, house: House) -> None:
    perun(house).candid = perun(house).candid.replace("conclude :", "conclude_all :")
    with pytest.raises(InterfaceMismatch, match="it has no method conclude"):
        await alice.trust.check()
    assert "conclude" in (alice.trust.reason_not_to_open() or "")


async def test_a_canister_that_publishes_no_interface_is_refused(alice: Inhabitant, house: House) -> None:
    await alice.trust.check()
    perun(house).candid = ""
    with pytest.raises(InterfaceUnknown, match="publishes no interface"):
        await alice.trust.check()
    assert "publishes no interface" in (alice.trust.reason_not_to_open() or "")


@pytest.mark.parametrize("fault", ["wrong_signature", "wrong_key", "delegation_by_stranger", "delegation_out_of_range"])
async def test_a_forged_certificate_about_the_code_is_no_news(alice: Inhabitant, house: House, fault: str) -> None:
    await alice.trust.check()
    perun(house).module_hash = OTHER
    await house.order(fault, endpoint="read_state")
    with pytest.raises(LyingReplica):
        await alice.trust.check()
    assert alarms(alice) == []
    await house.clear()
    await alice.trust.check()
    assert len(alarms(alice)) == 1


async def test_an_old_certificate_does_not_hide_that_the_code_changed(alice: Inhabitant, house: House) -> None:
    house.mint(alice.wallet, 20 * ICP)
    alice.agree()
    await alice.trust.check()
    await house.order("stale_certificate", endpoint="read_state")
    perun(house).module_hash = OTHER
    for _ in range(3):  # the calls of the node tell it the time
        house.advance(200)
        await alice.services.watcher.look(alice.driver.channel.id)
    with pytest.raises(LyingReplica, match="too old"):
        await alice.trust.check()
    await house.clear()
    await alice.trust.check()
    assert len(alarms(alice)) == 1


def installs(node: Inhabitant) -> list[dict[str, str | int | bool]]:
    events = node.services.store.read.events(0, 1000)
    return [event.data for event in events if event.kind == "canister.installed_again"]


async def test_a_snapshot_put_back_is_an_alarm_and_stops_openings_until_the_operator_answers_for_it(
    house: House, tmp_path: Path
) -> None:
    """Neither the module hash nor the controllers change by it, and every channel is what it was."""
    hashes = (perun(house).module_hash.hex(),)
    alice = Inhabitant(house, tmp_path / "n", module_hashes=hashes).start()
    await alice.open()
    await alice.trust.check()
    await house.network.replica.take_snapshot(PERUN_CANISTER_ID)
    house.advance(5)
    at_ns = await house.network.replica.put_back(PERUN_CANISTER_ID)
    await alice.trust.check()
    (alarm,) = installs(alice)
    assert (alarm["is_ns"], alarm["trusted"], alarm["alarm"]) == (str(at_ns), False, True)
    assert str(at_ns) in (alice.trust.reason_not_to_open() or "")
    await alice.trust.check()
    assert len(installs(alice)) == 1
    assert alarms(alice) == []

    again = await alice.crash()
    await again.trust.check()
    assert "snapshot" in (again.trust.reason_not_to_open() or ""), "a listed hash does not answer for it"
    await again.stop()
    trusted = Inhabitant(house, again.directory, module_hashes=hashes, trusted_installs=(at_ns,))
    await trusted.trust.check()
    assert trusted.trust.reason_not_to_open() is None
    await house.network.replica.put_back(PERUN_CANISTER_ID)
    await trusted.trust.check()
    assert trusted.trust.reason_not_to_open() is not None, "the next one is another one"
    await trusted.stop()


async def test_a_reinstallation_while_the_node_was_off_is_an_alarm_at_its_start(house: House, tmp_path: Path) -> None:
    alice = Inhabitant(house, tmp_path / "n").start()
    await alice.trust.check()
    later = await alice.crash()
    house.network.replica.tree.installed_ns[PERUN_CANISTER_ID] += 1
    await later.trust.check()
    assert len(installs(later)) == 1
    assert later.trust.reason_not_to_open() is not None, "on a local network too"
    await later.stop()


async def test_an_upgrade_to_listed_code_is_answered_for_by_its_hash(house: House, tmp_path: Path) -> None:
    hashes = (perun(house).module_hash.hex(), OTHER.hex())
    node = Inhabitant(house, tmp_path / "n", module_hashes=hashes).start()
    await node.trust.check()
    perun(house).module_hash = OTHER
    house.network.replica.tree.installed_ns[PERUN_CANISTER_ID] += 1
    await node.trust.check()
    assert (len(alarms(node)), installs(node)) == (1, [])
    assert node.trust.reason_not_to_open() is None
    await node.stop()


async def test_new_controllers_and_the_same_code_installed_again_at_once(house: House, tmp_path: Path) -> None:
    node = Inhabitant(house, tmp_path / "n", module_hashes=(perun(house).module_hash.hex(),)).start()
    await node.trust.check()
    house.network.replica.tree.controllers[PERUN_CANISTER_ID] = (STRANGER,)
    house.network.replica.tree.installed_ns[PERUN_CANISTER_ID] += 1
    await node.trust.check()
    assert len(alarms(node)) == 1
    assert "installed again" in (node.trust.reason_not_to_open() or "")
    await node.stop()


async def test_replicas_that_keep_no_account_of_installations(house: House, tmp_path: Path) -> None:
    """Code from before is certified to have none; when replicas learn to tell, that is no alarm."""
    installed = house.network.replica.tree.installed_ns.pop(PERUN_CANISTER_ID)
    node = Inhabitant(house, tmp_path / "n").start()
    await node.trust.check()
    assert node.trust.reason_not_to_open() is None
    house.network.replica.tree.installed_ns[PERUN_CANISTER_ID] = installed
    await node.trust.check()
    assert (installs(node), node.trust.reason_not_to_open()) == ([], None)
    # Hiding what was shown is no way out.
    del house.network.replica.tree.installed_ns[PERUN_CANISTER_ID]
    with pytest.raises(LyingReplica, match="any more"):
        await node.trust.check()
    await node.stop()


async def test_servers_that_do_not_know_the_path(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chain.perun.INSTALLED", b"unheard_of")
    node = Inhabitant(house, tmp_path / "n").start()
    await node.trust.check()
    seen = node.services.store.read.code_seen()
    assert seen is not None
    assert (seen.installed_ns, node.trust.reason_not_to_open()) == (None, None)
    await node.stop()
