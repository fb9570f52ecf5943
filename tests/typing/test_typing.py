"""A checker finds the mistakes in a user's code before a worker does."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOURCE = HERE / "tasks.py"


def expected(checker):
    """By line, what *checker* must say: 0 is pyright, 1 is mypy."""
    marks = enumerate((re.search(r"# error: ([\w-]+), ([\w-]+)", line) for line in SOURCE.read_text().splitlines()), 1)
    return {number: mark[checker + 1] for number, mark in marks if mark}


def run(checker, *words):
    """What *checker* writes; the two are part of the extra `dev`."""
    program = Path(sys.executable).with_name(checker)
    if not program.exists():
        assert os.environ.get("CI") != "true", f"{checker} is missing; install the extra `dev`"
        pytest.skip(f"{checker} is not installed")
    return subprocess.run([program, *words], capture_output=True, text=True, check=False, cwd=HERE.parents[1]).stdout


def test_pyright_refuses_wrong_calls_and_takes_right_ones(tmp_path):
    settings = tmp_path / "pyrightconfig.json"
    settings.write_text(json.dumps({"include": [str(SOURCE)], "extraPaths": [str(HERE.parents[1])]}))

    told = run("basedpyright", "--outputjson", "--level", "error", "--pythonpath", sys.executable, "-p", settings)

    found = json.loads(told)["generalDiagnostics"]
    assert {one["range"]["start"]["line"] + 1: one["rule"] for one in found} == expected(0)


def test_mypy_refuses_wrong_calls_and_takes_right_ones(tmp_path):
    # Its own file for settings, so that none of the project or the user has a say.
    settings = tmp_path / "mypy.ini"
    settings.write_text("[mypy]\nstrict = True\n")

    told = run("mypy", "--config-file", settings, "--cache-dir", tmp_path / "cache", "--output", "json", SOURCE)

    found = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    assert {one["line"]: one["code"] for one in found if one["severity"] == "error"} == expected(1)
