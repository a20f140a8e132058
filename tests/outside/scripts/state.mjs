// What the network certifies about itself and its canisters.

import { CanisterStatus, HttpAgent, StatePaths, SubnetStatus } from "@icp-sdk/core/agent";
import { Principal } from "@icp-sdk/core/principal";
import { agentOf, answer, bytes, given } from "./connection.mjs";

const agent = agentOf(given.seed);
const canisterId = Principal.fromText(given.perun);
const subnetId = Principal.selfAuthenticating(bytes(given.rootKey));
const text = (principals) => principals.map((one) => one.toText());

const paths = {
  time: StatePaths.time,
  hash: StatePaths.canisterModuleHash(canisterId),
  controllers: StatePaths.canisterControllers(canisterId),
  candid: StatePaths.canisterCandid(canisterId),
  nothing: StatePaths.canisterMetadataString(canisterId, "nothing"),
};
const { values, verifiedCertificate } = await agent.readState({ canisterId }, { paths: Object.values(paths) });

const subnetPaths = {
  time: StatePaths.time,
  key: StatePaths.subnetPublicKey(subnetId),
  ranges: StatePaths.subnetCanisterRanges(subnetId),
};
const subnet = await agent.readState({ subnetId }, { paths: Object.values(subnetPaths) });

// The older ways to ask, each path in a request of its own.
const older = await CanisterStatus.request({
  agent,
  canisterId,
  paths: ["time", "controllers", "module_hash", "candid", "subnet"],
});
const olderSubnet = await SubnetStatus.request({
  agent,
  subnetId,
  paths: ["time", "publicKey", "nodeKeys", "canisterRanges"],
});
await agent.syncTime({ canisterId });

answer({
  healthy: (await agent.status()).replica_health_status,
  fetchedRootKey: (await HttpAgent.create({ host: given.url, shouldFetchRootKey: true })).rootKey,
  canister: {
    time: values.get(paths.time).getTime(),
    hash: values.get(paths.hash),
    controllers: text(values.get(paths.controllers)),
    candid: values.get(paths.candid),
    nothing: verifiedCertificate.lookup_path(paths.nothing.path).status,
  },
  subnet: {
    time: subnet.values.get(subnetPaths.time).getTime(),
    key: subnet.values.get(subnetPaths.key),
    hosts: subnet.values.get(subnetPaths.ranges).some(([low, high]) => low.ltEq(canisterId) && high.gtEq(canisterId)),
    ofCanister: (await agent.getSubnetIdFromCanister(canisterId)).toText(),
    id: subnetId.toText(),
    nodes: (await agent.fetchSubnetKeys(canisterId)).size,
  },
  older: {
    hash: older.get("module_hash"),
    controllers: text(older.get("controllers")),
    candid: older.get("candid"),
    subnet: older.get("subnet").subnetId,
    key: olderSubnet.get("publicKey"),
    nodes: olderSubnet.get("nodeKeys").size,
    ranges: olderSubnet.get("canisterRanges").length,
  },
  millisecondsApart: agent.getTimeDiffMsecs(),
});
