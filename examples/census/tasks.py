"""The tasks: measure one source file, run later, fail.  Workers import this module, and so does whoever sends."""

import ast
import os
import time
import warnings
from typing import TypedDict

from chicory import Chicory, RetryPolicy

app = Chicory()

# Old files have escapes that Python has come to dislike; that is not what is counted here.
warnings.filterwarnings("ignore", category=SyntaxWarning, module="<unknown>")


class Measure(TypedDict):
    """What is known of one file; *error* says why it could not be parsed."""

    size: int
    lines: int
    functions: int
    classes: int
    error: str | None


@app.task()
def measure(path: str, tally: str) -> Measure:
    """Read, parse and measure the file *path*, and note in *tally* that it was done."""
    note(tally, path)
    with open(path, "rb") as file:
        source = file.read()
    found = Measure(size=len(source), lines=source.count(b"\n"), functions=0, classes=0, error=None)
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        # Some files are there to be wrong.  That is an answer and no failure: trying again would not help.
        found["error"] = str(error)
        return found
    for node in ast.walk(tree):
        found["functions"] += isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        found["classes"] += isinstance(node, ast.ClassDef)
    return found


@app.task()
async def clock() -> float:
    """The time at which this was run."""
    return time.time()


@app.task(retry_policy=RetryPolicy(max_retries=2, retry_delay=0.1))
async def fragile(what: str) -> None:
    """Fail, and fail again."""
    raise ConnectionError(f"{what} does not answer")


def note(tally: str, line: str) -> None:
    """Add *line* in one write, which the system keeps in one piece however many processes add at once."""
    try:
        file = os.open(tally, os.O_WRONLY | os.O_APPEND)
    except FileNotFoundError:
        return  # left over from a run that was stopped; nobody counts it any more
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)
