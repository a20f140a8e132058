"""Is this a Perun canister that we can work with? Its certified interface beside the one that this node speaks."""

from __future__ import annotations

import re
from typing import Any, Final

from antlr4 import CommonTokenStream, InputStream, ParseTreeWalker  # type: ignore[import-untyped]
from antlr4.error.ErrorListener import ErrorListener  # type: ignore[import-untyped]
from ic import candid
from ic.parser.DIDEmitter import DIDEmitter
from ic.parser.DIDLexer import DIDLexer
from ic.parser.DIDParser import DIDParser

from chain.errors import UnexpectedReply

__all__ = ["DISPUTES_SINCE", "PERUN_INTERFACE", "differences", "methods_of"]

PERUN_INTERFACE: Final = """
type Funding = record { channel : blob; participant : blob };
type Params = record { nonce : blob; participants : vec blob; challenge_duration : nat64 };
type State = record { channel : blob; version : nat64; allocation : vec nat; finalized : bool };
type FullySignedState = record { state : State; sigs : vec blob };
type RegisteredState = record { state : State; timeout : nat64 };
type Event = variant { Funded : record { who : blob; total : nat }; Disputed : RegisteredState; Concluded };
type Error = variant { Authentication; NotFinalized; AlreadyConcluded; InvalidInput; InsufficientFunding;
  OutdatedState; LedgerError;
  ReceiverError : variant { TransactionType; Recipient; DuplicateTransaction; FailedToQuery } };
service : {
  transaction_notification : (nat64) -> (variant { Ok : nat; Err : Error });
  deposit : (Funding) -> (opt Error);
  query_holdings : (Funding) -> (opt nat) query;
  dispute : (Params, FullySignedState) -> (opt Error);
  conclude : (Params, FullySignedState) -> (opt Error);
  query_state : (blob) -> (opt RegisteredState) query;
  withdraw : (record { funding : Funding; receiver : principal }, blob) -> (opt nat64, opt Error);
  query_events : (blob, nat64) -> (vec Event) query;
}
"""
DISPUTES_SINCE: Final = """
type State = record { channel : blob; version : nat64; allocation : vec nat; finalized : bool };
type RegisteredState = record { state : State; timeout : nat64 };
service : {
  disputes_since : (nat64, nat32) -> (record {
    entries : vec record { index : nat64; channel : blob; state : RegisteredState }; head : nat64 }) query;
}
"""
"""The addition that makes watching cheap; canisters need not have it."""
MAX_INTERFACE_CHARS: Final = 65_536
MAX_NESTING: Final = 32
# ic-py's grammar has no names of arguments. A name before a colon after "(" or "," can be nothing else.
_ARGUMENT_NAME: Final = re.compile(r"([(,]\s*)[A-Za-z_]\w*\s*:")


class _Strict(ErrorListener):  # type: ignore[misc]
    """Raises where antlr would print and guess."""

    def syntaxError(  # noqa: N802  (antlr's name)
        self, recognizer: object, symbol: object, line: int, column: int, msg: str, error: object
    ) -> None:
        del recognizer, symbol, error
        raise UnexpectedReply(f"line {line}, column {column}: {msg}")


def methods_of(did: str) -> dict[str, str]:
    """Return each method of a Candid interface with its signature, all named types written out.

    Raises `UnexpectedReply` when the text cannot be read.
    """
    if len(did) > MAX_INTERFACE_CHARS:
        raise UnexpectedReply(f"an interface of {len(did)} characters; at most {MAX_INTERFACE_CHARS} are read")
    try:
        emitted = _parsed(_ARGUMENT_NAME.sub(r"\1", did))
        return {name: _signature(method) for name, method in emitted.items()}
    except Exception as exc:  # the parser answers foreign text with exceptions of every kind
        raise UnexpectedReply(f"the canister's interface cannot be read: {exc}") from exc


def _parsed(did: str) -> dict[str, Any]:
    make_lexer: Any = DIDLexer
    make_parser: Any = DIDParser
    make_emitter: Any = DIDEmitter
    lexer = make_lexer(InputStream(did))
    parser = make_parser(CommonTokenStream(lexer))
    for part in (lexer, parser):
        part.removeErrorListeners()
        part.addErrorListener(_Strict())
    emitter = make_emitter()
    ParseTreeWalker().walk(emitter, parser.program())
    methods: dict[str, Any] = emitter.getActor()["methods"]
    return methods


def differences(expected: dict[str, str], found: dict[str, str]) -> tuple[str, ...]:
    """Return a line for each expected method that is missing or has another signature. Others may be there."""
    return tuple(
        f"it has no method {name}" if name not in found else f"its {name} is {found[name]}, not {signature}"
        for name, signature in expected.items()
        if found.get(name) != signature
    )


def _signature(method: Any) -> str:
    arguments = ", ".join(_text(kind, 0) for kind in method.argTypes)
    results = ", ".join(_text(kind, 0) for kind in method.retTypes)
    return " ".join([f"({arguments}) -> ({results})", *method.annotations])


def _text(kind: Any, depth: int) -> str:
    """Write a type out. References are followed, so that the order of definitions makes no difference."""
    if depth > MAX_NESTING:
        raise UnexpectedReply("a type that contains itself; the interface has none")
    match kind:
        case candid.RecClass():
            return _text(kind.getType(), depth + 1)  # type: ignore[no-untyped-call]
        case candid.OptClass():
            return f"opt {_text(kind._type, depth + 1)}"  # noqa: SLF001  (ic-py has no other way)
        case candid.VecClass():
            return f"vec {_text(kind._type, depth + 1)}"  # noqa: SLF001  (ic-py has no other way)
        case candid.RecordClass():
            return f"record {_fields(kind, depth)}"
        case candid.VariantClass():
            return f"variant {_fields(kind, depth)}"
        case _:
            return str(kind.name)


def _fields(kind: Any, depth: int) -> str:
    fields = (f"{name} : {_text(part, depth + 1)}" for name, part in kind._fields.items())
    return "{ " + "; ".join(fields) + " }"
