from pathlib import Path

from perund.control.reference import error_table, method_table

PAGE = (Path(__file__).parents[3] / "docs" / "rpc.md").read_text()


def test_the_page_lists_every_method_as_it_is() -> None:
    assert method_table() in PAGE


def test_the_page_lists_every_error_as_it_is() -> None:
    assert error_table() in PAGE
