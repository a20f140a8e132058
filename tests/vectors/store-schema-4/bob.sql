BEGIN TRANSACTION;
CREATE TABLE about(
  id INTEGER PRIMARY KEY CHECK (id = 1),
  network BLOB NOT NULL,             -- 32 bytes, protocol.terms.network_hash
  runs INTEGER NOT NULL              -- how often a node opened this store
);
INSERT INTO "about" VALUES(1,X'1111111111111111111111111111111111111111111111111111111111111111',1);
CREATE TABLE canister_code(          -- what was certified of the Perun canister: another code is an alarm
  id INTEGER PRIMARY KEY CHECK (id = 1),
  module_hash BLOB,                  -- 32 bytes, or null: nothing is installed
  controllers TEXT NOT NULL,         -- principals: a JSON list of hex, sorted
  changed INTEGER NOT NULL           -- whether it was ever another one
);
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
INSERT INTO "channel" VALUES(1,X'20BCEE3B028C79EF94A32286E84FE1DDD1D8A3D716FF303F0E2D5D0C7D97140739058F57079EB5DF3FCECC58421B666462F141EDEAF8D77ACA5956AE5F006C86',X'1111111111111111111111111111111111111111111111111111111111111111',X'0000000000000000000000000000000000000000000000000000000000000000',X'022222222222222222222222222222222222222222222222222222222222222222',1,X'00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000',X'3333333333333333333333333333333333333333333333333333333333333333',X'4444444444444444444444444444444444444444444444444444444444444444',X'8A88E3DD7409F195FD52DB2D3CBA5D72CA6709BF1D94121BF3748801B40F6F5C',X'8139770EA87D175F56A35466C34C7ECCCB8D8A91B4EE37A25DF60F5B8FC9B394',1000,500,60000000000,2000000000000000000,X'3E8FD2797AA0CC5DEC1F11924B8C924DDD1FA7CAD34E689F00C14E99E9D02A925755F3E4C535E76BCFA8EF4726D26005CA1D22B92535C636F077D513DA82F50C',X'02C9FFBAE5BD50ABFE0F9F94EBADFA11559B69CDBCE6152B4EFA2C2E9D13CF2CA690E06EDE92D08419EE4B7D89A647AF4DE04B0BB75CAE0127B7E8D67F6A6501',7);
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
INSERT INTO "channel_state" VALUES(1,'open','','',7,600000000000,6,1012,488,0,X'76C3247E7675DCDCC5FD61D8CDEE4A8D52081A5703A109C28B48B633A784BFD1210ECDDD0F59CB91D62BF7C9182A5B86CE6785D9A2109927880CEC24B17D5706',X'3934175E62B33E4820048EA46A36F11FC0381E33B03259E84623E339861FD10D4F98CE19A2C85D09C4871CEB34BC9E2C7A92D844B12ECCEAE901E752D11A650A',6,6,X'9F711D27589491440871F5A401A8E69F08A8EF2864729A8B6A20698D0CE4B6D3',0,NULL);
CREATE TABLE cost(                   -- every e8 that left a wallet is in holdings, in a payout or here (rule 6)
  id INTEGER PRIMARY KEY,
  number INTEGER REFERENCES channel(number),
  what TEXT NOT NULL,
  amount INTEGER NOT NULL
);
CREATE TABLE credit(                 -- what a channel brought that this node did not pay for
  id INTEGER PRIMARY KEY,
  number INTEGER NOT NULL REFERENCES channel(number),
  what TEXT NOT NULL,
  amount INTEGER NOT NULL
);
CREATE TABLE event(
  cursor INTEGER PRIMARY KEY,
  at_ms INTEGER NOT NULL,            -- local clock, for people
  kind TEXT NOT NULL,
  number INTEGER,
  data TEXT NOT NULL
);
INSERT INTO "event" VALUES(1,1795969307557,'channel.updated',1,'{"version":1,"mine_e8s":"523","theirs_e8s":"977","change_e8s":"23","sent":0,"received":2,"finalized":false}');
INSERT INTO "event" VALUES(2,1795969307625,'channel.updated',1,'{"version":2,"mine_e8s":"496","theirs_e8s":"1004","change_e8s":"-27","sent":2,"received":0,"finalized":false}');
INSERT INTO "event" VALUES(3,1795969307657,'channel.updated',1,'{"version":3,"mine_e8s":"527","theirs_e8s":"973","change_e8s":"31","sent":0,"received":2,"finalized":false}');
INSERT INTO "event" VALUES(4,1795969307661,'channel.updated',1,'{"version":4,"mine_e8s":"492","theirs_e8s":"1008","change_e8s":"-35","sent":2,"received":0,"finalized":false}');
INSERT INTO "event" VALUES(5,1795969307665,'channel.updated',1,'{"version":5,"mine_e8s":"531","theirs_e8s":"969","change_e8s":"39","sent":0,"received":2,"finalized":false}');
INSERT INTO "event" VALUES(6,1795969307669,'channel.updated',1,'{"version":6,"mine_e8s":"488","theirs_e8s":"1012","change_e8s":"-43","sent":2,"received":0,"finalized":false}');
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
CREATE TABLE outstanding(            -- participant 0's update that is not acknowledged, as it goes on the wire
  number INTEGER PRIMARY KEY REFERENCES channel(number),
  version INTEGER NOT NULL,
  message BLOB NOT NULL
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
INSERT INTO "payment" VALUES(1,0,X'00000000000000000000000000000001',11,X'',1,NULL,NULL,1795969307557);
INSERT INTO "payment" VALUES(1,0,X'00000000000000000000000000000002',12,X'',1,NULL,NULL,1795969307557);
INSERT INTO "payment" VALUES(1,0,X'00000000000000000000000000000005',15,X'',3,NULL,NULL,1795969307657);
INSERT INTO "payment" VALUES(1,0,X'00000000000000000000000000000006',16,X'',3,NULL,NULL,1795969307657);
INSERT INTO "payment" VALUES(1,0,X'00000000000000000000000000000009',19,X'',5,NULL,NULL,1795969307665);
INSERT INTO "payment" VALUES(1,0,X'0000000000000000000000000000000A',20,X'',5,NULL,NULL,1795969307665);
INSERT INTO "payment" VALUES(1,1,X'00000000000000000000000000000003',13,X'',2,NULL,NULL,1795969307581);
INSERT INTO "payment" VALUES(1,1,X'00000000000000000000000000000004',14,X'',2,NULL,NULL,1795969307581);
INSERT INTO "payment" VALUES(1,1,X'00000000000000000000000000000007',17,X'',4,NULL,NULL,1795969307659);
INSERT INTO "payment" VALUES(1,1,X'00000000000000000000000000000008',18,X'',4,NULL,NULL,1795969307659);
INSERT INTO "payment" VALUES(1,1,X'0000000000000000000000000000000B',21,X'',6,NULL,NULL,1795969307667);
INSERT INTO "payment" VALUES(1,1,X'0000000000000000000000000000000C',22,X'',6,NULL,NULL,1795969307667);
INSERT INTO "payment" VALUES(1,1,X'0000000000000000000000000000000E',24,X'',NULL,'queued',NULL,1795969307673);
CREATE TABLE peer(                   -- where peers were last reached
  peer BLOB PRIMARY KEY,
  host TEXT NOT NULL, port INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE registered(             -- what the newest look showed on the canister
  number INTEGER PRIMARY KEY REFERENCES channel(number),
  version INTEGER NOT NULL,
  allocation_0 INTEGER NOT NULL, allocation_1 INTEGER NOT NULL,
  finalized INTEGER NOT NULL,
  timeout_ns INTEGER NOT NULL
);
CREATE TABLE request(                -- idempotency keys: the same key twice is one action
  key TEXT PRIMARY KEY,
  method TEXT NOT NULL,
  arguments BLOB NOT NULL,           -- SHA-256 of the canonical arguments
  result TEXT NOT NULL,              -- what names the action: a proposal, a channel, a payment, a block
  recorded_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE tower_receipt(          -- the newest receipt of a watchtower for a channel; times are chain times
  tower BLOB NOT NULL,               -- 33 bytes, its node key
  number INTEGER NOT NULL REFERENCES channel(number),
  version INTEGER NOT NULL,
  digest BLOB NOT NULL,
  chain_time_ns INTEGER NOT NULL, expires_ns INTEGER NOT NULL,
  signature BLOB NOT NULL,           -- by the tower: what its promise can be proved with
  PRIMARY KEY (tower, number)
) WITHOUT ROWID;
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
CREATE TABLE withdrawal(
  id INTEGER PRIMARY KEY,
  number INTEGER NOT NULL REFERENCES channel(number),
  holdings INTEGER NOT NULL,
  envelope BLOB,                     -- the signed call: repeated under the same request id
  status TEXT NOT NULL,              -- open, paid, void, undecided (the canister may have a payout open)
  block INTEGER, received INTEGER,
  from_block INTEGER NOT NULL
);
CREATE INDEX opening_live ON opening(phase) WHERE phase NOT IN ('opened', 'dead');
CREATE TRIGGER never_two_states_of_one_version BEFORE UPDATE OF signed_version, signed_digest ON channel_state
WHEN NEW.signed_digest IS NOT OLD.signed_digest AND (NEW.signed_version <= OLD.signed_version OR OLD.signed_final)
BEGIN
  SELECT RAISE(ABORT, 'rule 1: another state of a signed version, or one after a final state');
END;
CREATE INDEX payment_waiting ON payment(number, sender, status) WHERE status IN ('queued', 'offered');
CREATE INDEX payment_declined ON payment(number, sender) WHERE status = 'declined';
CREATE INDEX transfer_of ON transfer(number);
CREATE INDEX transfer_open ON transfer(status) WHERE status = 'open';
CREATE INDEX withdrawal_of ON withdrawal(number);
CREATE INDEX cost_of ON cost(number);
CREATE INDEX credit_of ON credit(number);
CREATE VIEW watched AS
SELECT c.channel, c.network, c.nonce, c.participant_0, c.participant_1, c.challenge_ns,
  s.version, s.allocation_0, s.allocation_1, s.finalized, s.signature_0, s.signature_1, s.phase
FROM channel c JOIN channel_state s USING (number);
COMMIT;
PRAGMA user_version = 4;
