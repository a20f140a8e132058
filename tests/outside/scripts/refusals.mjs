// What the agent refuses to believe, and what it is refused.

import { IC_ROOT_KEY } from "@icp-sdk/core/agent";
import { agentOf, answer, bytes, given, ledgerOf, perunOf, refusal } from "./connection.mjs";

const elsewhere = () => agentOf(undefined, { rootKey: bytes(IC_ROOT_KEY) });
const here = agentOf();

answer({
  callUnderAnotherRoot: await refusal(() => perunOf(elsewhere()).deposit({ channel: [], participant: [] })),
  queryUnderAnotherRoot: await refusal(() => ledgerOf(elsewhere()).icrc1_fee()),
  trap: await refusal(() => ledgerOf(here).account_balance({ account: [1, 2, 3] })),
  noSuchMethod: await refusal(() => here.update(given.perun, {
    methodName: "subtract",
    arg: bytes("4449444c0000"),
  })),
  noSuchCanister: await refusal(() => here.query("uxrrr-q7777-77774-qaaaq-cai", {
    methodName: "symbol",
    arg: bytes("4449444c0000"),
  }).then((reply) => { throw Object.assign(new Error(reply.reject_message), { name: reply.error_code }); })),
});
