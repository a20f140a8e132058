// The interfaces of the two canisters, as a JavaScript programmer writes them.

import { IDL } from "@icp-sdk/core/candid";

const blob = IDL.Vec(IDL.Nat8);
const Funding = IDL.Record({ channel: blob, participant: blob });
const Params = IDL.Record({ nonce: blob, participants: IDL.Vec(blob), challenge_duration: IDL.Nat64 });
export const State = IDL.Record({
  channel: blob,
  version: IDL.Nat64,
  allocation: IDL.Vec(IDL.Nat),
  finalized: IDL.Bool,
});
const FullySignedState = IDL.Record({ state: State, sigs: IDL.Vec(blob) });
const RegisteredState = IDL.Record({ state: State, timeout: IDL.Nat64 });
const WithdrawalRequest = IDL.Record({ funding: Funding, receiver: IDL.Principal });
const Event = IDL.Variant({
  Funded: IDL.Record({ who: blob, total: IDL.Nat }),
  Disputed: RegisteredState,
  Concluded: IDL.Null,
});
const PerunError = IDL.Variant({
  Authentication: IDL.Null,
  NotFinalized: IDL.Null,
  AlreadyConcluded: IDL.Null,
  InvalidInput: IDL.Null,
  InsufficientFunding: IDL.Null,
  OutdatedState: IDL.Null,
  LedgerError: IDL.Null,
  ReceiverError: IDL.Variant({
    TransactionType: IDL.Null,
    Recipient: IDL.Null,
    DuplicateTransaction: IDL.Null,
    FailedToQuery: IDL.Null,
  }),
});
const Disputes = IDL.Record({
  entries: IDL.Vec(IDL.Record({ index: IDL.Nat64, channel: blob, state: RegisteredState })),
  head: IDL.Nat64,
});

export const perun = () =>
  IDL.Service({
    transaction_notification: IDL.Func([IDL.Nat64], [IDL.Variant({ Ok: IDL.Nat, Err: PerunError })], []),
    deposit: IDL.Func([Funding], [IDL.Opt(PerunError)], []),
    query_holdings: IDL.Func([Funding], [IDL.Opt(IDL.Nat)], ["query"]),
    dispute: IDL.Func([Params, FullySignedState], [IDL.Opt(PerunError)], []),
    conclude: IDL.Func([Params, FullySignedState], [IDL.Opt(PerunError)], []),
    query_state: IDL.Func([blob], [IDL.Opt(RegisteredState)], ["query"]),
    withdraw: IDL.Func([WithdrawalRequest, blob], [IDL.Opt(IDL.Nat64), IDL.Opt(PerunError)], []),
    query_events: IDL.Func([blob, IDL.Nat64], [IDL.Vec(Event)], ["query"]),
    disputes_since: IDL.Func([IDL.Nat64, IDL.Nat32], [Disputes], ["query"]),
  });

const Tokens = IDL.Record({ e8s: IDL.Nat64 });
const TransferError = IDL.Variant({
  BadFee: IDL.Record({ expected_fee: Tokens }),
  InsufficientFunds: IDL.Record({ balance: Tokens }),
  TxTooOld: IDL.Record({ allowed_window_nanos: IDL.Nat64 }),
  TxCreatedInFuture: IDL.Null,
  TxDuplicate: IDL.Record({ duplicate_of: IDL.Nat64 }),
});
const TransferArgs = IDL.Record({
  memo: IDL.Nat64,
  amount: Tokens,
  fee: Tokens,
  from_subaccount: IDL.Opt(blob),
  to: blob,
  created_at_time: IDL.Opt(IDL.Record({ timestamp_nanos: IDL.Nat64 })),
});
const Account = IDL.Record({ owner: IDL.Principal, subaccount: IDL.Opt(blob) });

export const ledger = () =>
  IDL.Service({
    transfer: IDL.Func([TransferArgs], [IDL.Variant({ Ok: IDL.Nat64, Err: TransferError })], []),
    account_balance: IDL.Func([IDL.Record({ account: blob })], [Tokens], ["query"]),
    icrc1_balance_of: IDL.Func([Account], [IDL.Nat], ["query"]),
    icrc1_fee: IDL.Func([], [IDL.Nat], ["query"]),
  });
