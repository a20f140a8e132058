"""What guards money, and the tests closest to it. A module that is gone, or tests that are, make the whole run fail."""

from __future__ import annotations

from typing import Final

__all__ = ["GUARDED"]


def _tests(folder: str, *names: str) -> tuple[str, ...]:
    return tuple(f"tests/unit/{folder}/test_{name}.py" for name in names)


_PROTOCOL: Final = ("tests/unit/protocol",)
_WATCHER: Final = ("tests/unit/watcher",)
_TOWER: Final = ("tests/unit/tower",)
_STORE: Final = ("tests/unit/store",)
_WIRE: Final = ("tests/unit/wire",)
_CERTIFIED: Final = _tests("chain", "whose_certificate", "vectors_certificates", "queries", "agent_calls", "everywhere")
_DEPOSITS: Final = _tests("node", "blocks_decide", "transfers", "lost_deposits", "funding_job")

GUARDED: Final[dict[str, tuple[str, ...]]] = {
    "protocol/channel.py": _PROTOCOL,
    "protocol/counting.py": _PROTOCOL,
    "protocol/following.py": _PROTOCOL,
    "protocol/funding.py": (*_tests("protocol", "funding"), "tests/properties/test_funding.py"),
    "protocol/hearing.py": _tests("protocol", "lives", "outlived"),
    "protocol/horizon.py": (*_tests("protocol", "horizon"), *_tests("watcher", "sweeping")),
    "protocol/lives.py": _tests("protocol", "lives", "outlived"),
    "protocol/messages.py": (*_tests("wire", "codec", "specification"), "tests/properties/test_encoding.py"),
    "protocol/opening.py": _tests("protocol", "opening", "declines"),
    "protocol/ordering.py": _PROTOCOL,
    "protocol/payments.py": (*_tests("protocol", "paying"), *_tests("wire", "codec")),
    "protocol/queue.py": (*_tests("protocol", "paying"), "tests/properties/test_queue.py"),
    "protocol/settlement.py": (*_tests("protocol", "settlement"), "tests/properties/test_settlement.py"),
    "protocol/signer.py": _tests("protocol", "signer", "closing", "recalling", "reconnecting"),
    "protocol/signing.py": _tests("protocol", "vectors_ed25519", "vectors_candid", "signer"),
    "protocol/standing.py": (*_tests("protocol", "lives"), *_tests("tower", "standing")),
    "protocol/types.py": (*_tests("protocol", "vectors_candid", "opening"), *_tests("wire", "codec")),
    "perund/node/driver.py": _tests("node", "driver", "durable_states", "settlement_job"),
    "perund/node/funding_job.py": _DEPOSITS,
    "perund/node/idempotency.py": _tests("node", "idempotency"),
    "perund/node/ledger_scan.py": _DEPOSITS,
    "perund/node/lost_deposits.py": _DEPOSITS,
    "perund/node/openings.py": _tests("node", "openings", "isolation"),
    "perund/node/paid_by_others.py": _tests("node", "funding_job", "settlement_job"),
    "perund/node/paying.py": _tests("node", "idempotency", "api"),
    "perund/node/payout_pool.py": _tests("node", "published", "settlement_job"),
    "perund/node/proven_deposit.py": _tests("node", "published", "funding_job"),
    "perund/node/published.py": _tests("node", "published"),
    "perund/node/settlement_job.py": _tests("node", "blocks_decide", "settlement_job", "published"),
    "perund/node/transfers.py": _tests("node", "blocks_decide", "transfers"),
    "perund/store/doubt.py": _STORE,
    "perund/store/jobs.py": (*_STORE, *_tests("node", "transfers", "settlement_job")),
    "perund/store/lives.py": _STORE,
    "perund/store/lock.py": _STORE,
    "perund/store/own_files.py": _STORE,
    "perund/store/reading.py": _STORE,
    "perund/store/statements.py": _STORE,
    "perund/store/store.py": _STORE,
    "perund/store/writer.py": _STORE,
    "watcher/doubts.py": _WATCHER,
    "watcher/log_follower.py": _WATCHER,
    "watcher/looking.py": _WATCHER,
    "watcher/refuting.py": _WATCHER,
    "watcher/roster.py": _WATCHER,
    "watcher/schedule.py": _WATCHER,
    "watcher/suspicion.py": _WATCHER,
    "watcher/sweep.py": _WATCHER,
    "watcher/watch.py": _WATCHER,
    "watcher/tower/proving.py": _TOWER,
    "watcher/tower/receipts.py": _TOWER,
    "watcher/tower/slots.py": _TOWER,
    "watcher/tower/tower.py": _TOWER,
    "chain/answers.py": _CERTIFIED,
    "chain/certificate.py": _CERTIFIED,
    "chain/everywhere.py": _CERTIFIED,
    "chain/hash_tree.py": _CERTIFIED,
    "chain/node_keys.py": _CERTIFIED,
    "chain/state_reader.py": _CERTIFIED,
    "chain/submission.py": (*_CERTIFIED, *_tests("chain", "signed_call")),
    "wire/cipher.py": _WIRE,
    "wire/noise.py": _WIRE,
}
"""Module and tests. The first tests are the closest: they are run first."""
