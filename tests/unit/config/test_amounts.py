import pytest
from hypothesis import given
from hypothesis import strategies as st

from perund.amounts import format_icp, parse_amount, parse_config_amount
from perund.durations import format_duration, parse_duration
from protocol.errors import CallerMistake
from protocol.types import MAX_E8S


@pytest.mark.parametrize(
    ("text", "e8s"),
    [
        ("1.5", 150_000_000),
        ("1.5 ICP", 150_000_000),
        ("1.5ICP", 150_000_000),
        ("1.5 icp", 150_000_000),
        ("150000000 e8s", 150_000_000),
        ("0.00000001", 1),
        ("1.500000000000", 150_000_000),
        ("184467440737.09551615", MAX_E8S),
    ],
)
def test_amounts_are_exact(text: str, e8s: int) -> None:
    assert parse_amount(text) == e8s


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("-1", "negative"),
        ("0", "zero"),
        ("0.0 ICP", "zero"),
        ("0.000000001", "8 decimals"),
        ("184467440737.09551616", "more than"),
        ("18446744073709551616 e8s", "more than"),
        ("1.5 e8s", "cannot be divided"),
        ("1 BTC", "unknown unit"),
        ("1e8", "unknown unit"),
        ("1,5", "not an amount"),
        ("", "not an amount"),
        ("nan", "not an amount"),
        ("１", "not an amount"),
        ("1_000", "not an amount"),
        ("9" * 5_000, "not an amount"),
    ],
)
def test_what_is_no_amount_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(CallerMistake, match=why) as caught:
        parse_amount(text)
    assert caught.value.code == "bad_amount"
    assert len(str(caught.value)) < 200


@given(st.integers(1, MAX_E8S))
def test_what_is_shown_can_be_typed(e8s: int) -> None:
    assert parse_amount(format_icp(e8s)) == e8s
    assert parse_amount(f"{e8s} e8s") == e8s


def test_a_bare_decimal_beside_a_key_of_e8s_would_be_a_guess() -> None:
    assert parse_config_amount(5) == parse_config_amount("5") == parse_config_amount("0.00000005 ICP") == 5
    with pytest.raises(CallerMistake, match="needs its unit"):
        parse_config_amount("1.5")


@pytest.mark.parametrize(
    ("text", "seconds"), [("60s", 60), ("10m", 600), ("2h", 7_200), ("1d", 86_400), ("1h30m", 5_400)]
)
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize("text", ["60", "", "0s", "-1s", "1w", "1.5h", "99999999d", "s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(CallerMistake):
        parse_duration(text)
