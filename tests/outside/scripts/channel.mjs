// A channel from funding to payout. Node's own Ed25519 signs; what it signs came as bytes, in the order of Rust's
// Candid encoder. The JavaScript encoder orders types otherwise, and the canister must refuse a signature over that.

import { createPrivateKey, sign } from "node:crypto";
import { IDL } from "@icp-sdk/core/candid";
import { Principal } from "@icp-sdk/core/principal";
import { agentOf, answer, bytes, given, hex, ledgerOf, perunOf } from "./connection.mjs";
import { State } from "./interfaces.mjs";

const PKCS8 = "302e020100300506032b657004220420";
const signed = (seed, message) => {
  const key = createPrivateKey({ key: Buffer.from(PKCS8 + seed, "hex"), format: "der", type: "pkcs8" });
  return Uint8Array.from(sign(null, message, key));
};

const params = {
  nonce: bytes(given.nonce),
  participants: given.participants.map((one) => bytes(one.key)),
  challenge_duration: BigInt(given.challengeNs),
};
const channel = bytes(given.channel);
const stateOf = ({ version, allocation, finalized }) => ({
  channel,
  version: BigInt(version),
  allocation: allocation.map(BigInt),
  finalized,
});
const signedBy = (state, message) => ({
  state,
  sigs: given.participants.map((one) => signed(one.keySeed, message)),
});

const seen = { notified: [], deposited: [], holdings: [], certifiedHoldings: [], paidOut: [], balances: [] };
const anyone = perunOf(agentOf());
for (const one of given.participants) {
  const agent = agentOf(one.seed);
  const perun = perunOf(agent);
  const paid = await ledgerOf(agent).transfer({
    memo: BigInt(one.memo),
    amount: { e8s: BigInt(one.share) },
    fee: { e8s: 10000n },
    from_subaccount: [],
    to: bytes(given.perunAccount),
    created_at_time: [{ timestamp_nanos: BigInt(Date.now()) * 1_000_000n }],
  });
  seen.notified.push(await perun.transaction_notification(paid.Ok));
  const funding = { channel, participant: bytes(one.key) };
  seen.deposited.push(await perun.deposit(funding));
  seen.holdings.push(await anyone.query_holdings(funding));
  // The same method as an update call: its answer is certified.
  const certified = await agent.update(given.perun, {
    methodName: "query_holdings",
    arg: IDL.encode([IDL.Record({ channel: IDL.Vec(IDL.Nat8), participant: IDL.Vec(IDL.Nat8) })], [funding]),
  });
  seen.certifiedHoldings.push(IDL.decode([IDL.Opt(IDL.Nat)], certified.reply)[0]);
}

const earlier = stateOf(given.earlier);
seen.disputed = await anyone.dispute(params, signedBy(earlier, bytes(given.earlier.encoded)));
seen.registered = (await anyone.query_state(channel))[0].state.version;

const final = stateOf(given.final);
const byJavaScript = IDL.encode([State], [final]);
seen.encodersDiffer = hex(byJavaScript) !== given.final.encoded;
seen.refused = await anyone.conclude(params, signedBy(final, byJavaScript));
seen.concluded = await anyone.conclude(params, signedBy(final, bytes(given.final.encoded)));
seen.events = (await anyone.query_events(channel, 0n)).map((event) => Object.keys(event)[0]);

for (const one of given.participants) {
  const receiver = Principal.fromText(one.receiver);
  const request = { funding: { channel, participant: bytes(one.key) }, receiver };
  seen.paidOut.push(await anyone.withdraw(request, signed(one.keySeed, bytes(one.withdrawal))));
  seen.balances.push(await ledgerOf(agentOf()).icrc1_balance_of({ owner: receiver, subaccount: [] }));
}
answer(seen);
