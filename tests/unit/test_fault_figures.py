"""The table of what fault tests came to."""

import ast

import pytest

from tests.faults.figures import BEGIN, END, Figures, names, renewed, row, title
from tests.pages import ROOT

PAGE = ROOT / "docs" / "faults.md"
EMPTY = f"Before.\n\n{BEGIN}\n{END}\n\nAfter.\n"


def test_a_row_has_counts_and_times():
    figures = Figures(tasks=7, faults=2, again=3, recoveries=(0.1, 0.3))

    assert row("a kill", figures) == "| a kill | 7 | 2 | 0 | 3 | 0 | 0 | 0 | 0 | 0.10 s | 0.30 s |"
    assert row("no fault", Figures(tasks=7)) == "| no fault | 7 | 0 | 0 | 0 | 0 | 0 | 0 | 0 |  |  |"


def test_rows_of_tests_that_did_not_run_stay_and_the_others_are_renewed():
    page = renewed(EMPTY, {"a kill": Figures(tasks=1), "a stop": Figures(tasks=2)})

    again = renewed(page, {"a stop": Figures(tasks=3)})

    assert again == page.replace("| a stop | 2 |", "| a stop | 3 |")
    assert names(again) == ["a kill", "a stop"]
    assert again.startswith("Before.\n")
    assert again.endswith("\n\nAfter.\n")


def test_a_page_without_a_place_for_the_table_is_refused():
    with pytest.raises(ValueError, match="has the lines"):
        renewed("no table", {})


@pytest.mark.parametrize(
    ("nodeid", "called"),
    [
        ("tests/faults/test_workers.py::test_killed_workers_lose_nothing[25]", "killed workers lose nothing (25)"),
        ("tests/faults/test_rabbitmq.py::test_it_lives", "it lives (RabbitMQ)"),
        ("tests/faults/test_rabbitmq.py::test_it_lives[a|b]", "it lives (RabbitMQ, a/b)"),
    ],
)
def test_a_test_is_called_by_its_name(nodeid, called):
    assert title(nodeid) == called


def test_each_row_of_the_page_is_of_a_test_that_exists():
    tests = {
        title(f"tests/faults/{path.name}::{each.name}").partition(" (")[0]
        for path in (ROOT / "tests" / "faults").glob("test_*.py")
        for each in ast.walk(ast.parse(path.read_text()))
        if isinstance(each, ast.AsyncFunctionDef | ast.FunctionDef)
    }

    called = names(PAGE.read_text())

    assert called
    assert {name.partition(" (")[0] for name in called} <= tests
