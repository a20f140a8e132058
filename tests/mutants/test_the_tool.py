"""The tool notices: mutants that tests miss are reported, and tables that do not fit the source are errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.guarded import GUARDED
from tests.mutants.judged import JUDGED, Judged
from tests.mutants.named import NAMED, Named
from tests.mutants.operators import mutants_of
from tests.mutants.running import Unfit, drawn, named_jobs, run
from tests.mutants.tree import REPOSITORY

SOURCE = '''
"""A bank."""


def may_pay(balance: int, amount: int) -> bool:
    """Whether it can be paid."""
    return amount <= balance and amount > 0


def left(balance: int, amount: int) -> int:
    if not may_pay(balance, amount):
        raise ValueError(f"{amount + 1} is too much")
    return balance - amount
'''
TESTS = """
import pytest
from protocol.bank import left, may_pay


def test_a_payment() -> None:
    assert left(5, 3) == 2
    assert not may_pay(5, 6)
    with pytest.raises(ValueError):
        left(5, 0)
"""
PATH, TEST = "protocol/bank.py", "tests/test_bank.py"
BOUNDARY = Judged(
    PATH,
    "may_pay",
    "return amount <= balance and amount > 0",
    "return amount < balance and amount > 0",
    "for this test: nobody pays all",
)


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    """A source with a module and tests that do not look at its boundary."""
    root = tmp_path / "bank"
    for file, text in ((PATH, SOURCE), (TEST, TESTS), ("protocol/__init__.py", ""), ("tests/__init__.py", "")):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(text)
    (root / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    return root


def pairs(source: str) -> set[tuple[str, str]]:
    return {(mutant.old, mutant.new) for mutant in mutants_of(source)}


@pytest.mark.parametrize(
    ("source", "old", "new"),
    [
        ("x = a < b", "x = a < b", "x = a <= b"),
        ("x = a <= b < c", "x = a <= b < c", "x = a <= b <= c"),
        ("x = a not in b", "x = a not in b", "x = a in b"),
        ("x = a is not b", "x = a is not b", "x = a is b"),
        ("x = a and b", "x = a and b", "x = a or b"),
        ("x = a and b", "x = a and b", "x = a and True"),
        ("x = a or b", "x = a or b", "x = False or b"),
        ("if a < b:\n    f()", "if a < b:", "if (not (a < b)):"),
        ("def f():\n    if a:\n        return", "if a:", "if False:"),
        ("async def f():\n    await g()", "await g()", "pass"),
        ("a += 1", "a += 1", "pass"),
        ("a += 1", "a += 1", "a += 2"),
        ("def f():\n    self.a = b", "self.a = b", "pass"),
        ("raise Bad(\n    1\n)", "raise Bad(\n1\n)", "pass"),
        ("f(a, b)", "f(a, b)", "f(b, a)"),
        ("x = max(a, b)", "x = max(a, b)", "x = min(a, b)"),
        ("x = a - b", "x = a - b", "x = a + b"),
        ("x = not a", "x = not a", "x = (a)"),
        ("x = f(a=True)", "x = f(a=True)", "x = f(a=False)"),
        ("for a in b:\n    continue", "continue", "break"),
        ("x = '×' if a < b else 0", "x = '×' if a < b else 0", "x = '×' if a <= b else 0"),
        ("match a:\n    case 1 if b:\n        f()", "case 1 if b:", "case 1 if True:"),
    ],
)
def test_a_mutant(source: str, old: str, new: str) -> None:
    assert (old, new) in pairs(source)


@pytest.mark.parametrize(
    "source",
    [
        "log.info('x', a=1)", "'text'", "assert a < b", "x: int", "x = f'{a + 1}'", "def f(a: 'X' = None) -> int: ...",
        "if TYPE_CHECKING:\n    import a", "__all__ = ['a']",
    ],
)  # fmt: skip
def test_what_no_test_has_to_notice_is_left_alone(source: str) -> None:
    assert mutants_of(source) == []


@pytest.mark.parametrize("path", sorted(GUARDED))
def test_every_mutant_of_what_is_guarded_can_be_made(path: str) -> None:
    source = (REPOSITORY / path).read_text()
    mutants = mutants_of(source)
    assert mutants
    assert all(mutant.old != mutant.new for mutant in mutants)
    assert mutants[len(mutants) // 2].of(source) != source


def test_the_tables_fit_the_source() -> None:
    assert len(drawn(GUARDED, JUDGED, 1, 1)) == len(GUARDED)
    assert len(named_jobs(NAMED)) == len(NAMED) == len({entry.name for entry in NAMED})
    assert all((REPOSITORY / test).exists() for entry in NAMED for test in entry.tests)


def test_a_survivor_is_reported_with_its_place_and_its_difference(bank: Path) -> None:
    some = {BOUNDARY.new, "return balance + amount", "return amount <= balance or amount > 0"}
    jobs = [job for job in drawn({PATH: (TEST,)}, (), 1, 99, bank) if job.name[2] in some]
    said: list[str] = []
    report = run(jobs, 2, 10, said.append, bank)
    assert [(job.path, job.line, job.name) for job in report.survivors] == [(PATH, 7, BOUNDARY.name)]
    told = "\n".join(report.lines(bank))
    assert "-    return amount <= balance and amount > 0\n+    return amount < balance and amount > 0" in told
    assert dict(report.verdicts[PATH]) == {"killed": 2, "survived": 1}
    assert len(said) == 3
    assert (bank / PATH).read_text() == SOURCE  # nobody has touched it


def test_a_judged_survivor_is_no_fault(bank: Path) -> None:
    jobs = [job for job in drawn({PATH: (TEST,)}, (BOUNDARY,), 1, 99, bank) if job.name == BOUNDARY.name]
    report = run(jobs, 1, 10, lambda _: None, bank)
    assert (report.judged, report.survivors) == (1, [])


def test_a_mutant_that_hangs_is_ended(bank: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.mutants.running.LEAST_LIMIT_S", 1.0)
    monkeypatch.setattr("tests.mutants.running.SLOWER", 1)
    hangs = Named("it hangs", PATH, "return balance - amount", "while True: pass", (TEST,))
    report = run(named_jobs((hangs,), bank), 1, 10, lambda _: None, bank)
    assert dict(report.verdicts[PATH]) == {"timeout": 1}


def test_tests_that_fail_without_a_mutant_end_the_run(bank: Path) -> None:
    (bank / TEST).write_text(TESTS.replace("== 2", "== 3"))
    with pytest.raises(Unfit, match="do not pass without a mutant"):
        run(drawn({PATH: (TEST,)}, (), 1, 1, bank), 1, 10, lambda _: None, bank)


def test_when_the_time_is_over_the_others_are_not_run(bank: Path) -> None:
    report = run(drawn({PATH: (TEST,)}, (), 1, 3, bank), 1, 0, lambda _: None, bank)
    assert (report.not_run, report.verdicts) == (3, {})


def test_tables_that_do_not_fit_are_errors_with_their_names(bank: Path) -> None:
    with pytest.raises(Unfit, match=r"protocol/gone\.py, tests/test_gone\.py"):
        drawn({PATH: (TEST,), "protocol/gone.py": ("tests/test_gone.py",)}, (), 1, 1, bank)
    (bank / PATH).write_text(SOURCE.replace("amount > 0", "amount >= 1"))
    with pytest.raises(Unfit, match="return amount < balance and amount > 0"):
        drawn({PATH: (TEST,)}, (BOUNDARY,), 1, 1, bank)
    with pytest.raises(Unfit, match=r"protocol/bank\.py"):
        drawn({}, (BOUNDARY,), 1, 1, bank)
    with pytest.raises(Unfit, match="nobody pays"):
        named_jobs((Named("nobody pays", PATH, "amount > 0", "True", (TEST,)),), bank)


def test_a_draw_can_be_repeated() -> None:
    some = {path: tests for path, tests in GUARDED.items() if path.startswith("protocol/s")}
    first, again, other = (drawn(some, (), seed, 2) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert [job.path for job in first] == [*some, *some]  # each module has its turn before one has two
