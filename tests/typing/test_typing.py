"""A checker finds the mistakes in a user's code before a worker does."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def test_wrong_arguments_of_delay_are_errors_and_right_ones_are_not(tmp_path):
    checker = Path(sys.executable).with_name("basedpyright")
    if not checker.exists():
        assert os.environ.get("CI") != "true", "basedpyright is missing; install the extra `dev`"
        pytest.skip("basedpyright is not installed")
    source = HERE / "tasks.py"
    expected = {
        number: found[1]
        for number, line in enumerate(source.read_text().splitlines(), 1)
        if (found := re.search(r"# error: (\w+)", line))
    }
    settings = tmp_path / "pyrightconfig.json"
    settings.write_text(json.dumps({"include": [str(source)], "extraPaths": [str(HERE.parents[1])]}))

    answer = subprocess.run(
        [checker, "--outputjson", "--level", "error", "--pythonpath", sys.executable, "-p", settings],
        capture_output=True,
        text=True,
        check=False,
    )

    told = json.loads(answer.stdout)["generalDiagnostics"]
    assert {one["range"]["start"]["line"] + 1: one["rule"] for one in told} == expected
