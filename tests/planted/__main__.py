"""Put each bug into a copy of the source, and see that a test fails by it.

    python -m tests.planted [word ...]      only the bugs with one of these words in their names

The copy is tested without a bug first.  Ends with 1 when a bug was not caught, or when a suite fails without one.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from tests.pages import ROOT
from tests.planted.bug import Bug
from tests.planted.bugs import BUGS

# Seconds for one suite, which takes a few: a test that waits for what no longer happens gives up before.
LIMIT = 120.0
LAST_WORDS = 30.0
_LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info")
# pytest's code for this; one that cannot even collect ends with another.
_TESTS_FAILED = 1


def main(words: list[str]) -> int:
    chosen = [bug for bug in BUGS if not words or any(word in bug.name for word in words)]
    with tempfile.TemporaryDirectory(prefix="planted-") as directory:
        copy = Path(directory, "copy")
        shutil.copytree(ROOT, copy, ignore=_LEFT_OUT)
        for suite in dict.fromkeys(bug.suite for bug in chosen):
            code, said, _ = run(copy, suite)
            if code:
                print(f"without any bug {suite} ends with {code}:\n{said[-4000:]}")
                return 1
        missed = [bug for bug in chosen if not caught(copy, bug)]
    print(f"{len(chosen) - len(missed)} of {len(chosen)} bugs are caught")
    return 1 if missed else 0


def caught(copy: Path, bug: Bug) -> bool:
    """Whether a test fails when *copy* has *bug*; which it is is printed."""
    texts = bug.planted(copy)
    right = {path: path.read_text() for path in texts}
    try:
        for path, text in texts.items():
            path.write_text(text)
        code, said, seconds = run(copy, bug.suite)
    finally:
        for path, text in right.items():
            path.write_text(text)
    failed = re.search(r"^FAILED (\S+)", said, re.MULTILINE)
    if code == _TESTS_FAILED and failed:
        print(f"{bug.name}: caught by {failed[1]} in {seconds:.1f} s", flush=True)
        return True
    print(f"{bug.name}: NOT CAUGHT, {bug.suite} ends with {code}:\n{said[-2000:]}", flush=True)
    return False


def run(copy: Path, suite: str) -> tuple[int | None, str, float]:
    """The exit code of *suite* in *copy* up to the first failure, what it says, and how long it took; no code when it
    does not end."""
    environ = {
        **os.environ,
        # Before what is installed, which is the source itself; of a file that changes nothing compiled may be left.
        "PYTHONPATH": os.pathsep.join([str(copy), str(copy / "supervisor")]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *shlex.split(suite)]
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, cwd=copy, env=environ, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            # With an interrupt it still stops the servers that it started.
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(LAST_WORDS)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = None
        output.seek(0)
        return code, output.read(), time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
