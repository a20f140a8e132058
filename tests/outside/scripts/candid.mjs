// Decodes Candid bytes at expected types, and tells what came out, or that nothing did.

import { readFileSync } from "node:fs";
import { IDL } from "@icp-sdk/core/candid";

const simple = {
  null: IDL.Null, bool: IDL.Bool, nat: IDL.Nat, int: IDL.Int, nat8: IDL.Nat8, nat32: IDL.Nat32, nat64: IDL.Nat64,
  text: IDL.Text, reserved: IDL.Reserved, principal: IDL.Principal,
};

function typeOf(kind) {
  if (typeof kind === "string") return simple[kind];
  const [what, inner] = kind;
  if (what === "opt") return IDL.Opt(typeOf(inner));
  if (what === "vec") return IDL.Vec(typeOf(inner));
  const fields = Object.fromEntries(Object.entries(inner).map(([name, part]) => [name, typeOf(part)]));
  return what === "record" ? IDL.Record(fields) : IDL.Variant(fields);
}

function told(kind, value) {
  if (kind === "null" || kind === "reserved") return null;
  if (kind === "principal") return Buffer.from(value.toUint8Array()).toString("hex");
  if (typeof kind === "string") return typeof value === "bigint" || typeof value === "number" ? String(value) : value;
  const [what, inner] = kind;
  if (what === "opt") return value.length ? told(inner, value[0]) : null;
  if (what === "vec" && inner === "nat8") return Buffer.from(value).toString("hex");
  if (what === "vec") return Array.from(value, (one) => told(inner, one));
  const names = what === "record" ? Object.keys(inner) : Object.keys(value);
  return Object.fromEntries(names.map((name) => [name, told(inner[name], value[name])]));
}

const { cases } = JSON.parse(readFileSync(0, "utf8"));
const answers = cases.map(({ hex, types }) => {
  try {
    const values = IDL.decode(types.map(typeOf), Uint8Array.from(Buffer.from(hex, "hex")));
    return { values: values.map((value, place) => told(types[place], value)) };
  } catch (error) {
    return { refused: String(error.message).slice(0, 200) };
  }
});
console.log(JSON.stringify({ answers }));
