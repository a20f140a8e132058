"""The bytes of messages: what is accepted, what is refused, and that nothing else can happen."""

from __future__ import annotations

import random
import tracemalloc
from dataclasses import fields
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import messages as m
from protocol.errors import InvariantBroken
from protocol.payments import EMPTY, Batch, Payment
from protocol.types import MAX_INT64, MAX_NAT64, ChannelId, Nanos, ParticipantKey
from tests.unit.wire.second_opinion import EXTENSIONS, pack, unpack
from wire.cipher import MAX_MESSAGE_BYTES
from wire.codec import OFFER_ROOM, UPDATE_ROOM, decode, encode, encoded_size_bound, payments_that_fit
from wire.errors import BadMessage

CHANNEL = ChannelId(bytes(range(64)))

nat64 = st.integers(0, MAX_NAT64) | st.sampled_from([0, 127, 128, 2**63 - 1, 2**63, MAX_NAT64])
bytes32 = st.binary(min_size=32, max_size=32)
int63 = st.integers(0, MAX_INT64) | st.sampled_from([0, 127, 128, MAX_INT64])
keys = bytes32.map(ParticipantKey)
channels = st.binary(min_size=64, max_size=64).map(ChannelId)
signatures = st.binary(min_size=64, max_size=64)
codes = st.from_regex(r"[a-z][a-z0-9_]{0,31}", fullmatch=True)
nanos = int63.map(Nanos)
numbers = st.integers(1, 2**63 - 1)


def printable(most: int) -> st.SearchStrategy[str]:
    return st.text(max_size=most).filter(lambda t: t.isprintable() and len(t.encode()) <= most)


@st.composite
def allocations(draw: st.DrawFn) -> tuple[int, int]:
    total = draw(nat64)
    first = draw(st.integers(0, total))
    return first, total - first


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    count = draw(st.integers(0, 20))
    seed = draw(st.integers(0, 2**32))
    ids = b"".join(random.Random(seed + i).randbytes(16) for i in range(count))
    amounts = tuple(draw(st.lists(st.integers(1, MAX_NAT64), min_size=count, max_size=count)))
    positions = st.integers(0, max(0, count - 1))
    memos = draw(st.dictionaries(positions, st.binary(min_size=1, max_size=256), max_size=5 if count else 0))
    return Batch(ids, amounts, memos)


MESSAGES: dict[type[m.Message], st.SearchStrategy[m.Message]] = {
    m.Hello: st.builds(m.Hello, nat64, bytes32, nat64, printable(64), nat64),
    m.ErrorMessage: st.builds(m.ErrorMessage, codes, printable(256), channels | st.just(b"")),
    m.Ping: st.builds(m.Ping, nat64),
    m.Pong: st.builds(m.Pong, nat64),
    m.ChannelProposal: st.builds(m.ChannelProposal, bytes32, bytes32, keys, allocations(), nanos, nanos),
    m.ChannelAccept: st.builds(m.ChannelAccept, bytes32, bytes32, keys),
    m.ChannelReject: st.builds(m.ChannelReject, bytes32, codes, printable(256)),
    m.StateSignature: st.builds(m.StateSignature, bytes32, signatures),
    m.ChannelReady: st.builds(m.ChannelReady, channels),
    m.Offer: st.builds(m.Offer, channels, batches()),
    m.Decline: st.builds(
        m.Decline, channels, st.integers(0, 9).flatmap(lambda n: st.binary(min_size=16 * n, max_size=16 * n)), codes
    ),
    m.Update: st.builds(m.Update, channels, int63, allocations(), st.booleans(), batches(), batches(), signatures),
    m.Ack: st.builds(m.Ack, channels, int63, signatures),
    m.Confirm: st.builds(m.Confirm, channels, int63),
    m.CloseRequest: st.builds(m.CloseRequest, channels),
    m.Resume: st.builds(
        m.Resume, channels, st.sampled_from(m.ResumePhase), int63, bytes32, int63, bytes32 | st.just(b""), st.booleans()
    ),
    m.SignedStateMessage: st.builds(
        m.SignedStateMessage, channels, int63, allocations(), st.booleans(), signatures, signatures
    ),
    m.TowerState: st.builds(
        m.TowerState, signatures, keys, keys, nanos, int63, allocations(), st.booleans(), signatures, signatures
    ),
    m.TowerReceipt: st.builds(m.TowerReceipt, channels, int63, bytes32, nanos, nanos, signatures),
    m.TowerRefusal: st.builds(m.TowerRefusal, channels, int63, codes, printable(256)),
    m.TowerForget: st.builds(m.TowerForget, channels),
    m.TowerRecall: st.builds(m.TowerRecall, channels),
    m.TowerHeld: st.builds(m.TowerHeld, channels, int63, allocations(), st.booleans(), signatures, signatures),
    m.TowerInquiry: st.builds(m.TowerInquiry, nat64),
    m.TowerStanding: st.builds(
        m.TowerStanding,
        nat64,
        bytes32,
        numbers,
        nat64,
        st.lists(st.integers(0, 255), unique=True, max_size=9).map(
            lambda buckets: b"".join(bytes((b,)) + bytes((b % 7 + 1,)) * 32 for b in sorted(buckets))
        ),
    ),
    m.TowerListRequest: st.builds(m.TowerListRequest, st.integers(0, 255), channels | st.just(b"")),
    m.TowerList: st.builds(
        m.TowerList,
        st.just(3),
        st.just(b"") | st.just(b"\x03" + bytes(63)),
        st.lists(st.integers(1, 2**32), unique=True, max_size=9).map(
            lambda ids: b"".join(b"\x03" + i.to_bytes(63, "big") + bytes(40) for i in sorted(ids))
        ),
        st.booleans(),
    ),
    m.Life: st.builds(m.Life, numbers, bytes32, signatures),
    m.LifeHeard: st.builds(m.LifeHeard, numbers, bytes32, signatures),
    m.LifeStopped: st.builds(m.LifeStopped, numbers, bytes32, numbers, bytes32, signatures),
    m.Addresses: st.builds(
        m.Addresses,
        st.lists(
            st.tuples(
                st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z]{2,9}){0,3}", fullmatch=True)
                | st.ip_addresses().map(str),
                st.integers(1, 65_535),
            ),
            max_size=8,
            unique=True,
        ).map(tuple),
    ),
}
any_message = st.one_of(*MESSAGES.values())

EXAMPLES: list[m.Message] = [
    m.Hello(1, bytes(32), 0, "perund/0.1.0", 1),
    m.ErrorMessage("bad_message", "nö", b""),
    m.Ping(7),
    m.Pong(2**64 - 1),
    m.ChannelProposal(bytes(32), bytes(32), ParticipantKey(bytes(32)), (5, 0), Nanos(10), Nanos(20)),
    m.ChannelAccept(bytes(32), bytes(32), ParticipantKey(bytes(32))),
    m.ChannelReject(bytes(32), "too_small", "at least 1 ICP"),
    m.StateSignature(bytes(32), bytes(64)),
    m.ChannelReady(CHANNEL),
    m.Offer(CHANNEL, Batch.of([Payment(b"a" * 16, 3, b"memo"), Payment(b"b" * 16, 2**40)])),
    m.Decline(CHANNEL, b"a" * 32, "too_small"),
    m.Update(CHANNEL, 9, (4, 6), False, Batch.of([Payment(b"a" * 16, 3, b"memo")]), EMPTY, bytes(64)),
    m.Ack(CHANNEL, 9, bytes(64)),
    m.Confirm(CHANNEL, 9),
    m.CloseRequest(CHANNEL),
    m.Resume(CHANNEL, m.ResumePhase.OPEN, 9, bytes(32), 10, bytes(32), False),
    m.SignedStateMessage(CHANNEL, 9, (4, 6), True, bytes(64), bytes(64)),
    m.TowerState(
        bytes(64),
        ParticipantKey(bytes(32)),
        ParticipantKey(b"a" * 32),
        Nanos(10),
        9,
        (4, 6),
        True,
        bytes(64),
        bytes(64),
    ),
    m.TowerReceipt(CHANNEL, 9, bytes(32), Nanos(5), Nanos(6), bytes(64)),
    m.TowerRefusal(CHANNEL, 9, "full", "no room"),
    m.TowerForget(CHANNEL),
    m.TowerRecall(CHANNEL),
    m.TowerHeld(CHANNEL, 9, (4, 6), True, bytes(64), bytes(64)),
    m.TowerInquiry(7),
    m.TowerStanding(7, bytes(32), 3, 2, b"\x01" + b"a" * 32 + b"\x09" + b"b" * 32),
    m.TowerListRequest(9, b""),
    m.TowerList(9, b"", b"\x09" + bytes(103), True),
    m.Life(5, bytes(32), bytes(64)),
    m.LifeHeard(2**63 - 1, bytes(32), bytes(64)),
    m.LifeStopped(5, bytes(32), 6, bytes(32), bytes(64)),
    m.Addresses((("node.example", 9735), ("2001:db8::1", 1), ("9.9.9.9", 65535))),
]


def named(message: m.Message) -> str:
    return type(message).__name__


def fields_of(message: m.Message) -> list[Any]:
    """What another implementation of MessagePack reads in our bytes."""
    return unpack(encode(message))


def refused(row: object, code: str = "bad_message") -> str:
    data = row if isinstance(row, bytes) else pack(row)
    with pytest.raises(BadMessage) as raised:
        decode(data)
    assert raised.value.code == code
    return str(raised.value)


def test_examples_and_strategies_cover_every_message() -> None:
    every = {kind for group in get_args(m.Message) for kind in (get_args(group) or (group,))}
    assert set(MESSAGES) == every == set(map(type, EXAMPLES))


@settings(max_examples=300)
@given(any_message)
def test_every_message_comes_back_as_it_was(message: m.Message) -> None:
    data = encode(message)
    assert decode(data) == message
    row = unpack(data)
    assert row[0] == message.TYPE
    assert pack(row) == data  # the shortest form, as another encoder writes it


def test_an_update_in_bytes() -> None:
    update = m.Update(CHANNEL, 1, (4, 6), False, Batch.of([Payment(b"i" * 16, 300, b"me")]), EMPTY, b"s" * 64)
    assert fields_of(update) == [
        22, bytes(CHANNEL), 1, [4, 6], False, [b"i" * 16, [300], [[0, b"me"]]], [b"", [], []], b"s" * 64,
    ]  # fmt: skip


@pytest.mark.parametrize("example", EXAMPLES, ids=named)
def test_a_missing_an_additional_and_a_trailing_field_are_refused(example: m.Message) -> None:
    row = fields_of(example)
    refused(row[:-1])
    refused([*row, 0])
    refused(encode(example) + b"\xc0")
    refused(encode(example)[:-1])
    refused(encode(example) + encode(example))


@pytest.mark.parametrize("example", EXAMPLES, ids=named)
@pytest.mark.parametrize(
    "wrong",
    [None, 1.5, -1, {}, {"a": 1}, [], [[[]]], "text\n", b"\x00", *EXTENSIONS, True],
)
def test_no_field_takes_a_value_of_another_kind(example: m.Message, wrong: object) -> None:
    row = fields_of(example)
    for index in range(1, len(row)):
        if (isinstance(row[index], bool) and isinstance(wrong, bool)) or (
            (named(example), wrong) in (("Decline", b""), ("Addresses", []))
        ):
            continue
        refused([*row[:index], wrong, *row[index + 1 :]])


@pytest.mark.parametrize("example", EXAMPLES, ids=named)
def test_byte_strings_have_exactly_their_length(example: m.Message) -> None:
    row = fields_of(example)
    for index, value in enumerate(row):
        if isinstance(value, bytes) and value:
            for other in (value + b"x", value[:-1]):
                refused([*row[:index], other, *row[index + 1 :]])


def test_numbers_are_nat64_and_flags_are_no_numbers() -> None:
    row = fields_of(m.SignedStateMessage(CHANNEL, 9, (4, 6), True, bytes(64), bytes(64)))
    refused([*row[:4], 1, *row[5:]])
    refused([*row[:2], True, *row[3:]])
    refused([*row[:2], -9, *row[3:]])
    refused([*row[:2], 9.0, *row[3:]])
    refused([*row[:3], [4, 6, 0], *row[4:]])
    assert "above 2^64-1" in refused([*row[:3], [MAX_NAT64, 1], *row[4:]])
    whole = decode(pack([*row[:3], [MAX_NAT64, 0], *row[4:]]))
    assert isinstance(whole, m.SignedStateMessage)
    assert whole.allocation == (MAX_NAT64, 0)
    held = fields_of(m.TowerHeld(CHANNEL, 9, (4, 6), True, bytes(64), bytes(64)))
    assert "above 2^64-1" in refused([*held[:3], [MAX_NAT64, 1], *held[4:]])


BOUNDED = ("version", "pending_version", "_ns")
"""How the fields are named whose numbers end in signed columns, or in moments."""


@pytest.mark.parametrize("example", EXAMPLES, ids=named)
def test_versions_and_moments_of_every_message_fit_a_signed_column(example: m.Message) -> None:
    row = fields_of(example)
    for index, field in enumerate(fields(example), 1):
        if field.name.endswith(BOUNDED) and field.name != "protocol_version":
            assert decode(pack([*row[:index], MAX_INT64, *row[index + 1 :]])) is not None
            for much in (MAX_INT64 + 1, MAX_NAT64):
                assert "<= 9223372036854775807" in refused([*row[:index], much, *row[index + 1 :]])


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ([b"i" * 16, [0], []], ">= 1"),
        ([b"i" * 16, [True], []], "bool"),
        ([b"i" * 16, [1.0], []], "float"),
        ([b"i" * 16, [-1], []], ">= 1"),
        ([b"i" * 15, [1], []], "ids"),
        ([b"i" * 32, [1], []], "ids"),
        ([b"i" * 32, [1, 1], []], "twice"),
        ([b"i" * 16, [1], [[0, b""]]], "length >= 1"),
        ([b"i" * 16, [1], [[0, b"m" * 257]]], "length <= 256"),
        ([b"i" * 16, [1], [[1, b"m"]]], "memo for payment 1"),
        ([b"i" * 16, [1], [[0, b"m"], [0, b"n"]]], "do not rise"),
        ([b"a" * 16 + b"b" * 16, [1, 1], [[1, b"m"], [0, b"n"]]], "do not rise"),
        ([b"i" * 16, [1], [[0, "m"]]], "str"),
        ([b"i" * 16, [1], [[True, b"m"]]], "bool"),
        ([b"i" * 16, [1], {0: b"m"}], "object"),
        ([b"", [], [[0, b"m"]]], "memos without payments"),
        ([b"i" * 16, [1]], "length 3"),
    ],
)
def test_a_batch_that_does_not_fit_together_is_refused(columns: object, why: str) -> None:
    assert why in refused([20, bytes(CHANNEL), columns])


@pytest.mark.parametrize(
    "text", ["line\nbreak", "\x1b[31mred", "zero\x00", "\u202eright to left", "a" * 257, "é" * 129]
)
def test_texts_are_printable_and_bounded(text: str) -> None:
    refused([2, "code", text, b""])
    refused([12, bytes(32), "code", text])
    refused([1, 1, bytes(32), 0, text, 1])


@pytest.mark.parametrize("code", ["", "Upper", "has space", "new\n", "word\n", "a" * 33, "1st", "é"])
def test_codes_are_words(code: str) -> None:
    refused([2, code, "text", b""])
    refused([21, bytes(CHANNEL), b"", code])


def test_text_that_is_not_utf8_is_refused() -> None:
    refused(b"\x94\x02\xa1a\xa2\xff\xff\xc4\x00")
    refused(b"\x94\x02\xa1a\xa3\xed\xa0\x80\xc4\x00")


def test_numbers_of_others_fit_a_signed_column() -> None:
    for kind in (m.Life, m.LifeHeard):
        for number in (0, 2**63, 2**64 - 1):
            refused(pack([kind.TYPE, number, bytes(32), bytes(64)]))
    refused(pack([9, 5, bytes(32), 2**63, bytes(32), bytes(64)]))
    refused(pack([53, 7, bytes(32), 2**63, 2, b""]))


@pytest.mark.parametrize(
    "places",
    [
        [["a.example", 0]], [["a.example", 65536]], [["a.example", True]], [["a.example", "1"]], [["", 1]],
        [["a.example"]], [["a.example", 1, 1]], [[b"a.example", 1]], [["a b", 1]], [["a\n", 1]], [["bücher", 1]],
        [["fe80::1%eth0", 1]], [["[::1]", 1]], [["a@b", 1]], [["a.example:1", 1]], [["a.example", 1], ["a.example", 1]],
        [[f"h{number}.example", 1] for number in range(9)], [["a" * 60 + ("." + "a" * 60) * 3 + "." + "a" * 10, 1]],
    ],
)  # fmt: skip
def test_what_is_no_address_is_not_announced(places: object) -> None:
    refused(pack([15, places]))


@pytest.mark.parametrize("host", ["a" * 61 + ("." + "a" * 61) * 3 + ".aaaaa", "xn--bcher-kva", "::ffff:1.2.3.4"])
def test_any_name_that_can_be_looked_up_is_announced(host: str) -> None:
    assert decode(pack([15, [[host, 9735]]])) == m.Addresses(((host, 9735),))


@pytest.mark.parametrize(
    "buckets",
    [b"\x01" * 32, b"\x02" + b"a" * 32 + b"\x01" + b"a" * 32, (b"\x01" + b"a" * 32) * 2, bytes(33), b"\x01" * 33 * 257],
    ids=["a part", "falling", "twice", "an empty one", "too many"],
)
def test_digests_of_a_tower_have_one_form(buckets: bytes) -> None:
    refused(pack([53, 7, bytes(32), 1, 2, buckets]))


@pytest.mark.parametrize(
    ("after", "entries"),
    [
        (b"", bytes(103)),
        (b"", b"\x02" + bytes(103)),
        (b"", (b"\x03" + bytes(103)) * 2),
        (b"\x03" + bytes(63), b"\x03" + bytes(103)),
        (b"\x03", b""),
        (b"", b"\x03" * 104 * 257),
    ],
    ids=["a part", "of another bucket", "twice", "not above what was asked", "half a channel", "too many"],
)
def test_a_list_of_a_tower_has_one_form(after: bytes, entries: bytes) -> None:
    refused(pack([57, 3, after, entries, True]))


@pytest.mark.parametrize("number", [61, 99, 127, 129, 255, 257, 65_535])
def test_an_unknown_odd_message_is_ignored(number: int) -> None:
    assert decode(pack([number])) is None
    assert decode(pack([number, {"future": [1.5]}, *range(40)])) is None


@pytest.mark.parametrize("number", [0, 6, 98, 128, 254, 256, 65_534])
def test_an_unknown_even_message_is_refused(number: int) -> None:
    assert str(number) in refused([number, "future"], "unknown_message")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x90", b"\x91", b"\xc0", b"\x03", b"\x81\x03\x07", b"\x92\xcc\x03\x07", b"\x92\xff\x07", b"\x92\xc3\x07",
        b"\xdc\x00\x02", b"\xdd\x00\x00\x00\x02\x03\x07", b"\x92\xce\x00\x01\x00\x01\x07", bytes(MAX_MESSAGE_BYTES + 1),
    ],
)  # fmt: skip
def test_what_does_not_begin_like_a_message_is_refused(data: bytes) -> None:
    refused(data)


BOMB_PREFIX = b"\x93\x14\xc4\x40" + bytes(CHANNEL)


@pytest.mark.parametrize(
    "data",
    [
        b"\x93\x14\xdd\xff\xff\xff\xff",
        b"\x93\x14\xc6\xff\xff\xff\xff",
        b"\x93\x14\xdb\xff\xff\xff\xff",
        b"\x93\x14\xdf\xff\xff\xff\xff",
        b"\x93\x14\xc9\xff\xff\xff\xff\x01",
        BOMB_PREFIX + b"\xdd\xff\xff\xff\xff",
        BOMB_PREFIX + b"\x93\xc6\xff\xff\xff\xff",
        BOMB_PREFIX + b"\x93\xc4\x00\xdd\xff\xff\xff\xff\x01",
        BOMB_PREFIX + b"\x93\xc4\x00\x90\xdd\xff\xff\xff\xff",
        BOMB_PREFIX + b"\x93\xc4\x00\x90\xdf\xff\xff\xff\xff",
        BOMB_PREFIX + (b"\x93\xc4\x00" + b"\x91" * 60_000),
        BOMB_PREFIX + b"\x93\xc4\x00" + b"\xdd\x00\x00\xff\xff" * 10_000,
        BOMB_PREFIX + b"\x93\xc4\x00\x90" + b"\xdd\x00\x00\x0f\x00" * 10_000,
        b"\x93\x14" + b"\x91" * 60_000,
        b"\x93\x14" + b"\x81\xa1a" * 20_000,
    ],
)
def test_declared_lengths_and_nesting_cost_nothing(data: bytes) -> None:
    tracemalloc.start()
    try:
        refused(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200_000


def mutate(rng: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(5):
            case 0:
                out[at : at + 1] = bytes((rng.randrange(256),))
            case 1:
                out[at:at] = rng.randbytes(rng.randint(1, 6))
            case 2:
                del out[at : at + rng.randint(1, 8)]
            case 3:
                out[at : at + 5] = rng.choice(b"\xc6\xc9\xdb\xdd\xdf\xcb\xcf\xd3\xc7\xca").to_bytes(
                    1, "big"
                ) + rng.randbytes(4)
            case _:
                other = encode(rng.choice(EXAMPLES))
                out[at:] = other[rng.randrange(len(other)) :]
    return bytes(out)


def test_mutated_messages_are_refused_in_one_way_or_are_messages() -> None:
    rng = random.Random(20_240_817)
    originals = [encode(example) for example in EXAMPLES]
    accepted = refusals = 0
    for _ in range(25_000):
        data = mutate(rng, rng.choice(originals))
        try:
            message = decode(data)
        except BadMessage as error:
            assert error.code in ("bad_message", "unknown_message")  # noqa: PT017
            refusals += 1
            continue
        accepted += 1
        if message is not None:
            assert decode(encode(message)) == message
    assert accepted > 500
    assert refusals > 5000


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_random_bytes_raise_nothing_else(data: bytes) -> None:
    try:
        decode(data)
    except BadMessage as error:
        assert error.code in ("bad_message", "unknown_message")  # noqa: PT017


def test_what_we_send_is_checked_too() -> None:
    for wrong in (
        m.Ack(ChannelId(b"short"), 1, bytes(64)),
        m.Ack(CHANNEL, 2**64, bytes(64)),
        m.Ack(CHANNEL, -1, bytes(64)),
        m.Update(CHANNEL, 1, (MAX_NAT64, 1), False, EMPTY, EMPTY, bytes(64)),
        m.Decline(CHANNEL, b"x", "code"),
        m.ErrorMessage("Not A Word", "text", b""),
        m.Resume(CHANNEL, m.ResumePhase.OPEN, 1, bytes(32), 1, b"short", False),
    ):
        with pytest.raises(InvariantBroken):
            encode(wrong)


def test_our_texts_are_made_fit_to_send() -> None:
    sent = decode(encode(m.ErrorMessage("code", "two\nlines " + "é" * 300, b"")))
    assert isinstance(sent, m.ErrorMessage)
    assert sent.text.startswith("two\\nlines éé")
    assert sent.text.endswith("...")
    assert len(sent.text.encode()) <= 256


def payments(count: int, memo: bytes = b"", *, amount: int = MAX_NAT64) -> list[Payment]:
    return [Payment(i.to_bytes(16, "big"), amount, memo) for i in range(count)]


@pytest.mark.parametrize("memo", [b"", b"m", b"m" * 40, b"m" * 256])
def test_a_full_update_and_a_full_offer_fit_one_frame(memo: bytes) -> None:
    many = payments(4000, memo)
    count_0, count_1 = payments_that_fit(many, many)
    assert abs(count_0 - count_1) <= 1
    update = m.Update(
        CHANNEL, MAX_INT64, (MAX_NAT64, 0), True, Batch.of(many[:count_0]), Batch.of(many[:count_1]), bytes(64)
    )
    assert 0.95 * MAX_MESSAGE_BYTES < len(encode(update)) <= MAX_MESSAGE_BYTES
    offered, _ = payments_that_fit(many, room=OFFER_ROOM)
    assert len(encode(m.Offer(CHANNEL, Batch.of(many[:offered])))) <= MAX_MESSAGE_BYTES


def test_each_side_gets_what_the_other_leaves() -> None:
    few, many = payments(3), payments(4000)
    assert payments_that_fit(few, many) == (3, UPDATE_ROOM // 25 - 3)
    assert payments_that_fit(many, few) == (UPDATE_ROOM // 25 - 3, 3)
    assert payments_that_fit(few, few) == (3, 3)
    assert payments_that_fit([], []) == (0, 0)


@given(batches())
def test_the_size_bound_holds(batch: Batch) -> None:
    assert len(encode(m.Offer(CHANNEL, batch))) <= 68 + encoded_size_bound(batch)


def test_too_many_payments_are_a_defect_of_ours() -> None:
    with pytest.raises(InvariantBroken):
        encode(m.Offer(CHANNEL, Batch.of(payments(2700))))
    with pytest.raises(InvariantBroken):
        encode(m.Offer(CHANNEL, Batch.of(payments(4000, amount=1))))
