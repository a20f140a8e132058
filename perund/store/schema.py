"""The database, as a list of migrations: the one at place n leads from schema n to n + 1.

Amounts and versions are 64-bit signed integers: the node refuses channels above 2^63-1 e8s. Times are
nanoseconds of chain time unless the name says otherwise.
"""

from __future__ import annotations

from typing import Final

import apsw

from perund.store.errors import UnknownSchema

__all__ = ["MIGRATIONS", "STORE_NAME", "known_version", "migrate"]

STORE_NAME: Final = "perund.db"
"""The node's store, in its data directory."""

_V1: Final = """
CREATE TABLE about(
  id INTEGER PRIMARY KEY CHECK (id = 1),
  network BLOB NOT NULL,             -- 32 bytes, protocol.terms.network_hash
  runs INTEGER NOT NULL              -- how often a node opened this store
);

CREATE TABLE opening(                -- from the proposal to a signed state 0, or to nothing
  proposal_id BLOB PRIMARY KEY,
  peer BLOB NOT NULL,
  we_proposed INTEGER NOT NULL,
  phase TEXT NOT NULL,               -- proposed, accepted, signing, opened, dead
  share_0 BLOB NOT NULL, participant_0 BLOB NOT NULL,
  share_1 BLOB, participant_1 BLOB,
  allocation_0 INTEGER NOT NULL, allocation_1 INTEGER NOT NULL,
  challenge_ns INTEGER NOT NULL, deadline_ns INTEGER NOT NULL,
  signature BLOB,                    -- ours on state 0: made once, durable before it leaves
  code TEXT NOT NULL DEFAULT '', text TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE INDEX opening_live ON opening(phase) WHERE phase NOT IN ('opened', 'dead');

CREATE TABLE channel(                -- what never changes in a channel
  number INTEGER PRIMARY KEY,
  channel BLOB NOT NULL UNIQUE,
  network BLOB NOT NULL,
  proposal_id BLOB NOT NULL UNIQUE,
  peer BLOB NOT NULL,
  our_index INTEGER NOT NULL,
  nonce BLOB NOT NULL, our_share BLOB NOT NULL, peer_share BLOB NOT NULL,
  participant_0 BLOB NOT NULL, participant_1 BLOB NOT NULL,
  allocation_0 INTEGER NOT NULL, allocation_1 INTEGER NOT NULL,
  challenge_ns INTEGER NOT NULL, deadline_ns INTEGER NOT NULL,
  signature_0 BLOB NOT NULL, signature_1 BLOB NOT NULL,   -- on state 0
  opened_ns INTEGER NOT NULL
);

CREATE TABLE channel_state(          -- what changes in a channel
  number INTEGER PRIMARY KEY REFERENCES channel(number),
  phase TEXT NOT NULL,
  frozen TEXT NOT NULL DEFAULT '',
  reason TEXT NOT NULL DEFAULT '',
  since_ns INTEGER NOT NULL,
  force_after_ns INTEGER NOT NULL,
  version INTEGER NOT NULL,          -- the newest fully signed state
  allocation_0 INTEGER NOT NULL, allocation_1 INTEGER NOT NULL,
  finalized INTEGER NOT NULL,
  signature_0 BLOB NOT NULL, signature_1 BLOB NOT NULL,
  peer_holds INTEGER NOT NULL DEFAULT 0,
  signed_version INTEGER NOT NULL,   -- the newest state that we signed
  signed_digest BLOB NOT NULL,
  signed_final INTEGER NOT NULL,
  settled_version INTEGER            -- what the canister settled on
);

CREATE TRIGGER never_two_states_of_one_version BEFORE UPDATE OF signed_version, signed_digest ON channel_state
WHEN NEW.signed_digest IS NOT OLD.signed_digest AND (NEW.signed_version <= OLD.signed_version OR OLD.signed_final)
BEGIN
  SELECT RAISE(ABORT, 'rule 1: another state of a signed version, or one after a final state');
END;

CREATE TABLE outstanding(            -- participant 0's update that is not acknowledged, as it goes on the wire
  number INTEGER PRIMARY KEY REFERENCES channel(number),
  version INTEGER NOT NULL,
  message BLOB NOT NULL
);

CREATE TABLE registered(             -- what the newest look showed on the canister
  number INTEGER PRIMARY KEY REFERENCES channel(number),
  version INTEGER NOT NULL,
  allocation_0 INTEGER NOT NULL, allocation_1 INTEGER NOT NULL,
  finalized INTEGER NOT NULL,
  timeout_ns INTEGER NOT NULL
);

CREATE TABLE payment(
  number INTEGER NOT NULL REFERENCES channel(number),
  sender INTEGER NOT NULL,           -- participant index
  id BLOB NOT NULL,
  amount INTEGER NOT NULL,
  memo BLOB NOT NULL,
  version INTEGER,                   -- the state that contains it; delivered when that is fully signed
  status TEXT,                       -- without a version: queued, offered, declined, failed, cancelled
  code TEXT,
  recorded_ms INTEGER NOT NULL,      -- local clock, for people
  PRIMARY KEY (number, sender, id)
) WITHOUT ROWID;
CREATE INDEX payment_waiting ON payment(number, sender, status) WHERE status IN ('queued', 'offered');
CREATE INDEX payment_declined ON payment(number, sender) WHERE status = 'declined';

CREATE TABLE transfer(               -- an intent is durable before the ledger is asked
  id INTEGER PRIMARY KEY,
  number INTEGER REFERENCES channel(number),   -- the channel whose deposit it is, or none
  receiver BLOB NOT NULL,            -- account identifier, 32 bytes
  amount INTEGER NOT NULL, fee INTEGER NOT NULL,
  memo BLOB NOT NULL,                -- 8 bytes, little endian
  created_at_ns INTEGER NOT NULL,    -- the ledger's created_at_time: the same in every repetition
  status TEXT NOT NULL,              -- open, paid, credited, void
  block INTEGER,
  last_expiry_ns INTEGER NOT NULL,   -- no request for it can be executed after this chain time
  unproven INTEGER NOT NULL,         -- requests whose end no certificate has shown
  from_block INTEGER NOT NULL        -- the ledger's length when it was made: its block is at or after it
);
CREATE INDEX transfer_of ON transfer(number);
CREATE INDEX transfer_open ON transfer(status) WHERE status = 'open';

CREATE TABLE withdrawal(
  id INTEGER PRIMARY KEY,
  number INTEGER NOT NULL REFERENCES channel(number),
  holdings INTEGER NOT NULL,
  envelope BLOB,                     -- the signed call: repeated under the same request id
  status TEXT NOT NULL,              -- open, paid, void, undecided (the canister may have a payout open)
  block INTEGER, received INTEGER,
  from_block INTEGER NOT NULL
);
CREATE INDEX withdrawal_of ON withdrawal(number);

CREATE TABLE cost(                   -- every e8 that left a wallet is in holdings, in a payout or here (rule 6)
  id INTEGER PRIMARY KEY,
  number INTEGER REFERENCES channel(number),
  what TEXT NOT NULL,
  amount INTEGER NOT NULL
);
CREATE INDEX cost_of ON cost(number);

CREATE TABLE peer(                   -- where peers were last reached
  peer BLOB PRIMARY KEY,
  host TEXT NOT NULL, port INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE request(                -- idempotency keys: the same key twice is one action
  key TEXT PRIMARY KEY,
  method TEXT NOT NULL,
  arguments BLOB NOT NULL,           -- SHA-256 of the canonical arguments
  result TEXT NOT NULL,              -- what names the action: a proposal, a channel, a payment, a block
  recorded_ms INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE event(
  cursor INTEGER PRIMARY KEY,
  at_ms INTEGER NOT NULL,            -- local clock, for people
  kind TEXT NOT NULL,
  number INTEGER,
  data TEXT NOT NULL
);
"""

_V2: Final = """
CREATE TABLE canister_code(          -- what was certified of the Perun canister: another code is an alarm
  id INTEGER PRIMARY KEY CHECK (id = 1),
  module_hash BLOB,                  -- 32 bytes, or null: nothing is installed
  controllers TEXT NOT NULL,         -- principals: a JSON list of hex, sorted
  changed INTEGER NOT NULL           -- whether it was ever another one
);

CREATE TABLE credit(                 -- what a channel brought that this node did not pay for
  id INTEGER PRIMARY KEY,
  number INTEGER NOT NULL REFERENCES channel(number),
  what TEXT NOT NULL,
  amount INTEGER NOT NULL
);
CREATE INDEX credit_of ON credit(number);
"""

_V3: Final = """
-- For `perund watch`, which reads it also from a store of a newer schema: every later migration keeps this view, with
-- these columns and meanings. Each channel with its newest fully signed state.
CREATE VIEW watched AS
SELECT c.channel, c.network, c.nonce, c.participant_0, c.participant_1, c.challenge_ns,
  s.version, s.allocation_0, s.allocation_1, s.finalized, s.signature_0, s.signature_1, s.phase
FROM channel c JOIN channel_state s USING (number);
"""

_V4: Final = """
CREATE TABLE tower_receipt(          -- the newest receipt of a watchtower for a channel; times are chain times
  tower BLOB NOT NULL,               -- 33 bytes, its node key
  number INTEGER NOT NULL REFERENCES channel(number),
  version INTEGER NOT NULL,
  digest BLOB NOT NULL,
  chain_time_ns INTEGER NOT NULL, expires_ns INTEGER NOT NULL,
  signature BLOB NOT NULL,           -- by the tower: what its promise can be proved with
  PRIMARY KEY (tower, number)
) WITHOUT ROWID;
"""

_V5: Final = """
-- Up to which version what the peer paid was counted as received (rule 4). What was believed before this column was
-- there stays so, but where something is registered: there the settlement decides.
ALTER TABLE channel_state ADD COLUMN counted INTEGER NOT NULL DEFAULT 0;
UPDATE channel_state SET counted = version WHERE number NOT IN (SELECT number FROM registered);
"""

_V6: Final = """
CREATE TABLE own_life(               -- the life of this node that is, or was last, on this store
  id INTEGER PRIMARY KEY CHECK (id = 1),
  number INTEGER NOT NULL,           -- rises with every start
  nonce BLOB NOT NULL,               -- 32 bytes, random: of two copies that start from one store each has its own
  restored INTEGER NOT NULL,         -- whether this store is a copy or from a backup, and has not been started yet
  stopped BLOB                       -- `LifeStopped`, our word that this life signs nothing any more, or null
);
CREATE TRIGGER a_life_number_only_rises BEFORE UPDATE OF number ON own_life
WHEN NEW.number <= OLD.number
BEGIN
  SELECT RAISE(ABORT, 'a life was to have a number that does not rise');
END;

CREATE TABLE heard_life(             -- the lives of peers with channels, as they were heard
  node BLOB PRIMARY KEY,             -- 33 bytes, its node key
  newest BLOB NOT NULL,              -- `Life`
  rival BLOB,                        -- `Life` of the same number, or null
  stopped BLOB                       -- `LifeStopped`, the word of an older one, or null
) WITHOUT ROWID;

CREATE TABLE tower_life(             -- which life of its store a watchtower named last
  tower BLOB PRIMARY KEY,            -- 33 bytes, its node key
  life BLOB NOT NULL,                -- 32 bytes
  writes INTEGER NOT NULL
) WITHOUT ROWID;
"""

_V7: Final = """
ALTER TABLE canister_code ADD COLUMN installed_ns INTEGER;      -- chain time of its newest installation, if it is known
ALTER TABLE canister_code ADD COLUMN reinstalled INTEGER NOT NULL DEFAULT 0;   -- whether that brought no other code
"""

_V8: Final = """
CREATE TABLE held(                   -- what the newest certified look showed the canister to hold: who has money here
  number INTEGER PRIMARY KEY REFERENCES channel(number),
  participant_0 INTEGER NOT NULL, participant_1 INTEGER NOT NULL   -- e8s, cut to 2^63-1
);
-- Of a channel that was ever open, a certified look showed both deposits.
INSERT INTO held SELECT number, allocation_0, allocation_1 FROM channel_state
WHERE phase IN ('open', 'closing') OR (phase = 'leaving' AND version > 0);

CREATE TABLE seen_at(                -- where a peer that has money proved its key last, as places are counted by
  peer BLOB PRIMARY KEY,
  origin TEXT NOT NULL
) WITHOUT ROWID;
"""

_V9: Final = """
-- Ids of the peer's payments up to this one that are in no state count as declined: it stands for many rows.
ALTER TABLE channel_state ADD COLUMN declined_up_to BLOB NOT NULL DEFAULT x'';
CREATE INDEX channel_state_phase ON channel_state(phase);
-- One event comes with each state, and is found in order; the others are rare among them.
CREATE INDEX event_kind ON event(kind, cursor) WHERE kind <> 'channel.updated';
"""

_V10: Final = """
CREATE TABLE given_up(               -- participant 0's updates, given up unacknowledged: the peer may complete them
  number INTEGER NOT NULL REFERENCES channel(number),
  version INTEGER NOT NULL,
  message BLOB NOT NULL,             -- as on the wire; until a fully signed state of a higher version makes it void
  PRIMARY KEY (number, version)
) WITHOUT ROWID;

ALTER TABLE channel_state ADD COLUMN loss_end_version INTEGER;  -- on whose shares a loss may be ended; null: on none
"""

_V11: Final = """
-- Of whom money was ever in a channel, the lives are kept: an older copy of it may come when the last one is closed.
ALTER TABLE heard_life ADD COLUMN had_money INTEGER NOT NULL DEFAULT 0;
"""

_V12: Final = """
-- Each block of the ledger is booked once. A deposit that was on record could be found and booked again, with its fee:
-- of such rows the one that is credited, or the first, stays, and the others never happened. So with a payout that two
-- channels took for theirs; the second goes on to look for its own, if it is not closed.
CREATE TABLE twice AS SELECT id, number, fee FROM (
  SELECT id, number, fee, row_number() OVER (PARTITION BY block ORDER BY status <> 'credited', id) AS nth
  FROM transfer WHERE block IS NOT NULL) WHERE nth > 1;
DELETE FROM cost WHERE id IN (
  SELECT c.id FROM (
    SELECT id, number, amount, row_number() OVER (PARTITION BY number, amount ORDER BY id DESC) AS nth
    FROM cost WHERE what = 'deposit fee') c
  JOIN (SELECT number, fee, count(*) AS times FROM twice GROUP BY number, fee) t
  ON t.number = c.number AND t.fee = c.amount AND c.nth <= t.times);
UPDATE transfer SET status = 'void', block = NULL WHERE id IN (SELECT id FROM twice);
DROP TABLE twice;

CREATE TABLE twice AS SELECT id, number, fee FROM (
  SELECT id, number, max(0, holdings - coalesce(received, 0)) AS fee,
    row_number() OVER (PARTITION BY block ORDER BY id) AS nth
  FROM withdrawal WHERE block IS NOT NULL) WHERE nth > 1;
DELETE FROM cost WHERE id IN (
  SELECT c.id FROM (
    SELECT id, number, amount, row_number() OVER (PARTITION BY number, amount ORDER BY id DESC) AS nth
    FROM cost WHERE what = 'withdrawal fee') c
  JOIN (SELECT number, fee, count(*) AS times FROM twice GROUP BY number, fee) t
  ON t.number = c.number AND t.fee = c.amount AND c.nth <= t.times);
UPDATE withdrawal SET status = 'void', block = NULL, received = NULL WHERE id IN (SELECT id FROM twice);
DROP TABLE twice;

CREATE UNIQUE INDEX transfer_block ON transfer(block) WHERE block IS NOT NULL;
CREATE UNIQUE INDEX withdrawal_block ON withdrawal(block) WHERE block IS NOT NULL;
-- No block is in both: one is from the wallet, the other to it from the canister.
CREATE VIEW booked_block AS
SELECT block FROM transfer WHERE block IS NOT NULL UNION ALL SELECT block FROM withdrawal WHERE block IS NOT NULL;
"""

_V13: Final = """
CREATE TABLE problem(                -- since when what `perun health` shows lasts, where nothing else dates it
  code TEXT NOT NULL,
  subject TEXT NOT NULL,             -- a channel, peer or tower in hex; empty: the node
  since_ns INTEGER NOT NULL,         -- local clock, for people
  PRIMARY KEY (code, subject)
) WITHOUT ROWID;
"""

_V14: Final = """
CREATE TABLE peer_address(           -- where a peer can be dialed
  peer BLOB NOT NULL,                -- 33 bytes, its node key
  host TEXT NOT NULL, port INTEGER NOT NULL,
  source TEXT NOT NULL,              -- 'given' by our operator, or 'announced' by the peer
  since_ms INTEGER NOT NULL,         -- since when, local clock
  proven_ms INTEGER,                 -- when the peer last proved by a handshake to be there, or null: it never did
  nearest INTEGER,                   -- how near a place it may lead to (`wire.nearness`); null: anywhere
  PRIMARY KEY (peer, host, port)
) WITHOUT ROWID;
INSERT INTO peer_address SELECT peer, host, port, 'given', 0, 0, NULL FROM peer;
DROP TABLE peer;
"""

MIGRATIONS: Final = (_V1, _V2, _V3, _V4, _V5, _V6, _V7, _V8, _V9, _V10, _V11, _V12, _V13, _V14)


def known_version(database: apsw.Connection, newest: int = len(MIGRATIONS)) -> int:
    """Return the schema of a store. Raises `UnknownSchema` when a newer perund wrote it: what its rows mean is not
    known here.
    """
    version = int(str(database.pragma("user_version")))
    if version > newest:
        raise UnknownSchema(f"the store has schema {version}, this perund knows up to {newest}; run the newer perund")
    return version


def migrate(database: apsw.Connection, migrations: tuple[str, ...] = MIGRATIONS) -> None:
    """Bring the schema up to date, each migration in a transaction of its own. Raises `UnknownSchema`."""
    version = known_version(database, len(migrations))
    for number, script in enumerate(migrations[version:], start=version + 1):
        database.execute("BEGIN IMMEDIATE")
        try:
            database.execute(script)
            database.execute(f"PRAGMA user_version = {number}")
        except BaseException:
            if database.in_transaction:  # a full disk rolls back by itself
                database.execute("ROLLBACK")
            raise
        database.execute("COMMIT")
