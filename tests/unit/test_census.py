"""The example: what it measures, and how it knows that each file was processed exactly once."""

from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.census.report import not_once, package_of
from examples.census.run import source_files
from examples.census.tasks import measure, note

FILES = [Path("/lib/a.py"), Path("/lib/b.py"), Path("/lib/c/d.py")]


@pytest.fixture
def tally(tmp_path):
    path = tmp_path / "tally"
    path.touch()
    return path


@given(st.lists(st.sampled_from(FILES)))
def test_the_books_agree_only_when_each_file_was_done_once(done):
    complaints = not_once(FILES, "".join(f"{path}\n" for path in done))

    assert (complaints == []) == (sorted(done) == FILES)


def test_a_file_nobody_sent_is_noticed():
    assert not_once([], "/lib/x.py\n") == ["/lib/x.py: never sent"]


def test_a_file_is_measured_and_noted(tmp_path, tally):
    source = tmp_path / "one.py"
    source.write_text("class A:\n    async def f(self): ...\n\n\ndef g(): ...\n")

    found = measure(str(source), str(tally))

    assert (found["lines"], found["functions"], found["classes"], found["error"]) == (5, 2, 1, None)
    assert tally.read_text() == f"{source}\n"


@pytest.mark.parametrize("source", [b"def", b"\0", b"# coding: none\n", b"'\xff'"])
def test_a_file_that_cannot_be_parsed_is_a_result_and_no_failure(tmp_path, tally, source):
    path = tmp_path / "bad.py"
    path.write_bytes(source)

    found = measure(str(path), str(tally))

    assert found["error"]
    assert found["size"] == len(source)


def test_notes_taken_at_once_do_not_mix(tally):
    lines = [f"{number}" * 100 for number in range(8)]
    threads = [Thread(target=lambda line=line: [note(str(tally), line) for _ in range(50)]) for line in lines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(tally.read_text().splitlines()) == sorted(lines * 50)


def test_a_task_left_over_from_a_stopped_run_does_no_harm(tmp_path):
    source = tmp_path / "one.py"
    source.write_text("pass\n")

    assert measure(str(source), str(tmp_path / "removed"))["lines"] == 1


def test_what_was_installed_is_not_the_standard_library(tmp_path):
    for name in ("a.py", "pkg/b.py", "pkg/c.txt", "site-packages/d.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    assert source_files(tmp_path) == [tmp_path / "a.py", tmp_path / "pkg" / "b.py"]
    assert [package_of(path, tmp_path) for path in source_files(tmp_path)] == ["(modules)", "pkg"]
