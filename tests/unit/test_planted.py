"""The bugs that `make planted` plants: each still fits the source, and names tests that exist."""

import shlex
from pathlib import Path

import pytest

from tests.pages import ROOT
from tests.planted.bug import bug
from tests.planted.bugs import BUGS


@pytest.mark.parametrize("planted", BUGS, ids=lambda one: one.name)
def test_each_bug_changes_the_source_and_names_a_suite(planted):
    texts = planted.planted(ROOT)

    assert all(text != path.read_text() for path, text in texts.items())
    for path, text in texts.items():
        if path.suffix == ".py":
            compile(text, path, "exec")
    files = [word for word in shlex.split(planted.suite) if word.startswith("tests/")]
    assert files
    assert all((ROOT / file).is_file() for file in files)


def test_no_two_bugs_have_one_name():
    assert len({one.name for one in BUGS}) == len(BUGS)


@pytest.mark.parametrize(("text", "count"), [("a = 1\n", 0), ("x = 1\nx = 1\n", 2)])
def test_a_bug_that_no_longer_fits_says_where(tmp_path, text, count):
    Path(tmp_path, "module.py").write_text(text)

    with pytest.raises(ValueError, match=f"swapped: in module.py there is {count} times, not once:\nx = 1"):
        bug("swapped", "tests/unit/test_planted.py", ("module.py", "x = 1", "x = 2")).planted(tmp_path)


def test_changes_of_one_file_follow_each_other(tmp_path):
    Path(tmp_path, "module.py").write_text("x = 1\ny = 2\n")
    two = bug("both", "tests/unit/test_planted.py", ("module.py", "x = 1", "x = 3"), ("module.py", "y = 2", "y = 4"))

    assert two.planted(tmp_path) == {tmp_path / "module.py": "x = 3\ny = 4\n"}
