// What every script starts with: its input, an agent on the devnet, and canisters behind it.

import { readFileSync } from "node:fs";
import { Actor, HttpAgent } from "@icp-sdk/core/agent";
import { Ed25519KeyIdentity } from "@icp-sdk/core/identity";
import { ledger, perun } from "./interfaces.mjs";

export const given = JSON.parse(readFileSync(0, "utf8"));

export const bytes = (hex) => Uint8Array.from(Buffer.from(hex, "hex"));
export const hex = (value) => Buffer.from(value).toString("hex");

/** An agent that trusts the given root key and nothing else. It never fetches one. */
export const agentOf = (seed, options = {}) =>
  HttpAgent.createSync({
    host: given.url,
    rootKey: bytes(given.rootKey),
    shouldFetchRootKey: false,
    verifyQuerySignatures: true,
    retryTimes: 0,
    ...(seed === undefined ? {} : { identity: Ed25519KeyIdentity.generate(bytes(seed)) }),
    ...options,
  });

export const perunOf = (agent) => Actor.createActor(perun, { agent, canisterId: given.perun });
export const ledgerOf = (agent) => Actor.createActor(ledger, { agent, canisterId: given.ledger });

/** What an action is refused with: the name and the message of its error. */
export const refusal = async (action) => {
  try {
    await action();
  } catch (error) {
    return { name: error.name, message: String(error.message) };
  }
  throw new Error("it was not refused");
};

/** Numbers of any size become decimal text, bytes become hex. */
export const answer = (value) =>
  process.stdout.write(
    JSON.stringify(value, (_, part) => {
      if (typeof part === "bigint") return part.toString();
      return part instanceof Uint8Array ? hex(part) : part;
    }),
  );
