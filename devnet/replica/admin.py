"""Admin calls of the devnet under `/_devnet`, in JSON: what no user of a real network can do.

* `POST advance {"seconds": n}` moves time ahead; n is an integer or a decimal.
* `POST fee {"e8s": n}` has transfers on the ledger cost n from now on.
* `POST mint {"account": hex or principal, "e8s": n}` makes money and answers `{"block": n}`.
* `POST faults {"fault": kind, "endpoint": "call" | "query" | "read_state" | "any", "count": n}` has the next n requests
  fail (`"method"`, `"canister"`: only those; `"seconds"` with the kinds that wait); a count of 0 clears what is due.
  The kinds are in docs/devnet.md. `GET faults` tells what is due, and how often each kind has hit.
* `POST snapshot {"canister": principal}` keeps what a canister is now, `POST restore {"canister": principal}` puts that
  back: neither its module hash nor its controllers change, only its `last_install_timestamp` (`{"time_ns": n}`).
* `GET state` answers `{"digest": hex}`: equal calls at equal times give equal digests.
* `GET info` tells what the ready line told.

Wrong input is answered with 400 and `{"error": "..."}`.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, cast

from aiohttp import web

from devnet.replica.faults import DELAYED, ENDPOINTS, KINDS, Endpoint, Faults, NoPast, Order
from devnet.replica.principals import NotAPrincipal, from_text, to_text
from devnet.replica.replica import Replica
from protocol.types import MAX_E8S

__all__ = ["Admin", "ChangeFee", "Mint", "account_of", "add_admin_routes"]

_MAX_ADVANCE_S: Final = 100 * 365 * 24 * 3600
_MAX_ADVANCE_NS: Final = _MAX_ADVANCE_S * 1_000_000_000
"""Further ahead, times would not fit a nat64 for long."""
_MAX_BODY: Final = 64 * 1024
_MAX_FAULTS: Final = 1_000_000
_MAX_DELAY_S: Final = 7 * 24 * 3600

Mint = Callable[[bytes, int, int], Awaitable[int]]
"""Takes account identifier (32 bytes), amount in e8s and chain time in ns; returns the ledger's block."""


ChangeFee = Callable[[int], Awaitable[None]]
"""Takes the new fee of the ledger in e8s."""


class BadInput(ValueError):
    """What an admin call was given makes no sense; the message tells what does."""


@dataclass(frozen=True, slots=True)
class Admin:
    """What the admin calls act on. `info`: the ready line; `change_fee`: None where the ledger's fee stays."""

    replica: Replica
    mint: Mint
    faults: Faults
    info: Mapping[str, str]
    change_fee: ChangeFee | None = None


def add_admin_routes(application: web.Application, admin: Admin) -> None:
    """Serve the admin calls."""
    application.router.add_post("/_devnet/advance", _json_call(admin, _advance))
    application.router.add_post("/_devnet/mint", _json_call(admin, _mint))
    application.router.add_post("/_devnet/fee", _json_call(admin, _change_fee))
    application.router.add_post("/_devnet/faults", _json_call(admin, _order_fault))
    application.router.add_post("/_devnet/snapshot", _json_call(admin, _snapshot))
    application.router.add_post("/_devnet/restore", _json_call(admin, _restore))

    async def info(_request: web.Request) -> web.Response:
        return web.json_response(dict(admin.info))

    async def faults(_request: web.Request) -> web.Response:
        due = [_shown(order) for order in admin.faults.due]
        return web.json_response({"due": due, "hits": dict(admin.faults.hits)})

    async def state(_request: web.Request) -> web.Response:
        return web.json_response({"digest": admin.replica.state_digest().hex()})

    application.router.add_get("/_devnet/info", info)
    application.router.add_get("/_devnet/faults", faults)
    application.router.add_get("/_devnet/state", state)


Action = Callable[[Admin, dict[str, object]], Awaitable[dict[str, int]]]


def _json_call(admin: Admin, action: Action) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        try:
            answer = await action(admin, await _read_object(request))
        except BadInput as exc:
            return web.json_response({"error": str(exc)}, status=400)
        return web.json_response(answer)

    return handle


async def _read_object(request: web.Request) -> dict[str, object]:
    if (request.content_length or 0) > _MAX_BODY:
        raise BadInput(f"the body is larger than {_MAX_BODY} bytes")
    try:
        # Decimals keep what was written: 0.1 seconds are 100000000 ns, not a float's idea of them.
        body: object = json.loads(await request.read(), parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError) as exc:  # 1e9999999999999999999 is no Decimal
        raise BadInput(f"the body is not JSON: {exc}") from exc
    if not isinstance(body, dict):
        raise BadInput("the body must be a JSON object")
    return body


async def _advance(admin: Admin, fields: dict[str, object]) -> dict[str, int]:
    seconds = fields.get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int | Decimal) or not Decimal(seconds).is_finite():
        raise BadInput('"seconds" must be a number above 0, for example {"seconds": 60}')
    if not 0 < seconds <= _MAX_ADVANCE_S:
        raise BadInput(f'"seconds" must be above 0 and at most a hundred years, not {seconds}')
    nanoseconds = int(seconds * 1_000_000_000)
    if nanoseconds == 0:
        raise BadInput(f'"seconds" is less than a nanosecond: {seconds}')
    if admin.replica.clock.offset_ns + nanoseconds > _MAX_ADVANCE_NS:
        raise BadInput("time was advanced by a hundred years already; start a new devnet")
    time_ns = admin.replica.clock.advance(nanoseconds)
    await admin.replica.rounds.certified()  # durable before it is confirmed
    return {"time_ns": time_ns}


async def _mint(admin: Admin, fields: dict[str, object]) -> dict[str, int]:
    account, amount = fields.get("account"), fields.get("e8s")
    if not isinstance(account, str):
        raise BadInput('"account" must be a text: 64 hex digits, or a principal')
    if isinstance(amount, bool) or not isinstance(amount, int) or not 0 < amount <= MAX_E8S:
        raise BadInput(f'"e8s" must be an integer from 1 to {MAX_E8S}')
    account_id = account_of(account)
    async with admin.replica.gate.passage():
        try:
            block = await admin.mint(account_id, amount, admin.replica.clock.now_ns())
        except ValueError as exc:
            raise BadInput(f"the ledger refuses to mint {amount} e8s: {exc}") from exc
    await admin.replica.rounds.certified()
    return {"block": block}


async def _change_fee(admin: Admin, fields: dict[str, object]) -> dict[str, int]:
    fee = fields.get("e8s")
    if isinstance(fee, bool) or not isinstance(fee, int) or not 0 <= fee <= MAX_E8S:
        raise BadInput(f'"e8s" must be an integer from 0 to {MAX_E8S}')
    if admin.change_fee is None:
        raise BadInput("the ledger of this network has one fee for ever")
    async with admin.replica.gate.passage():
        await admin.change_fee(fee)
    await admin.replica.rounds.certified()
    return {"fee_e8s": fee}


async def _snapshot(admin: Admin, fields: dict[str, object]) -> dict[str, int]:
    canister = _canister(fields.get("canister"))
    try:
        await admin.replica.take_snapshot(canister)
    except KeyError:
        raise BadInput(f'"canister" is {to_text(canister)}, which this network does not have') from None
    return {}


async def _restore(admin: Admin, fields: dict[str, object]) -> dict[str, int]:
    canister = _canister(fields.get("canister"))
    try:
        return {"time_ns": await admin.replica.put_back(canister)}
    except KeyError:
        raise BadInput(f'"canister" is {to_text(canister)}, of which there is no snapshot') from None


async def _order_fault(admin: Admin, fields: dict[str, object]) -> dict[str, int]:
    count = fields.get("count", 1)
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= _MAX_FAULTS:
        raise BadInput(f'"count" must be an integer from 0 (clear all) to {_MAX_FAULTS}')
    if count == 0:
        admin.faults.clear()
        return {"count": 0}
    order = Order(_kind(fields), _endpoint(fields), count, seconds=_delay(fields))
    method, canister = fields.get("method"), fields.get("canister")
    if method is not None:
        if not isinstance(method, str) or order.endpoint == "read_state":
            raise BadInput('"method" must be a text, and is not for the endpoint "read_state", which has none')
        order.method = method
    if canister is not None:
        order.canister = _canister(canister)
    try:
        await admin.faults.order(order)
    except NoPast as exc:
        raise BadInput(str(exc)) from exc
    return {"count": count}


def _kind(fields: dict[str, object]) -> str:
    kind = fields.get("fault")
    if not isinstance(kind, str) or kind not in KINDS:
        raise BadInput(f'"fault" must be one of {", ".join(sorted(KINDS))}')
    return kind


def _endpoint(fields: dict[str, object]) -> Endpoint | None:
    """Return the endpoint that is named, the only one that the fault has, or "call". None stands for "any"."""
    possible = KINDS[_kind(fields)]
    endpoint = fields.get("endpoint", "call" if "call" in possible else min(possible))
    if endpoint == "any":
        return None
    if not isinstance(endpoint, str) or endpoint not in ENDPOINTS:
        raise BadInput(f'"endpoint" must be one of any, {", ".join(sorted(ENDPOINTS))}')
    if endpoint not in possible:
        raise BadInput(f'the fault "{_kind(fields)}" is for {", ".join(sorted(possible))}, not for "{endpoint}"')
    return cast("Endpoint", endpoint)


def _delay(fields: dict[str, object]) -> float:
    seconds = fields.get("seconds", 0)
    if isinstance(seconds, bool) or not isinstance(seconds, int | Decimal) or not 0 <= seconds <= _MAX_DELAY_S:
        raise BadInput(f'"seconds" must be a number from 0 to {_MAX_DELAY_S}')
    if seconds and _kind(fields) not in DELAYED:
        raise BadInput(f'"seconds" is for the faults {", ".join(sorted(DELAYED))}')
    return float(seconds)


def _canister(text: object) -> bytes:
    if not isinstance(text, str):
        raise BadInput('"canister" must be a text: the principal of a canister')
    try:
        return from_text(text)
    except NotAPrincipal as exc:
        raise BadInput(f'"canister" is no principal: {exc}') from exc


def _shown(order: Order) -> dict[str, str | int | None]:
    return {
        "fault": order.kind,
        "endpoint": order.endpoint or "any",
        "method": order.method,
        "canister": None if order.canister is None else to_text(order.canister),
        "left": order.left,
    }


def account_of(text: str) -> bytes:
    """Return the account identifier (32 bytes) of 64 hex digits, or of a principal's default account.

    Raises `BadInput`. Source: ICP ledger, `AccountIdentifier`.
    """
    if len(text) == 64:
        try:
            account = bytes.fromhex(text)
        except ValueError as exc:
            raise BadInput(f'"account" has 64 characters that are not hex digits: {text}') from exc
        if len(account) != 32 or zlib.crc32(account[4:]).to_bytes(4, "big") != account[:4]:
            raise BadInput(f'"account" is mistyped, its check sum does not fit: {text}')
        return account
    try:
        principal = from_text(text)
    except NotAPrincipal as exc:
        raise BadInput(f'"account" is neither 64 hex digits nor a principal: {exc}') from exc
    digest = hashlib.sha224(b"\x0aaccount-id" + principal + bytes(32)).digest()
    return zlib.crc32(digest).to_bytes(4, "big") + digest
