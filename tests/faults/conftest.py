"""Servers and daemons for the fault tests, one of each for a module, so that a test costs no boot of its own; and the
report.

FAULTS_TABLE is the page whose table is renewed, or "-" for one that is only printed.
"""

import os
from pathlib import Path

import pytest

from benchmarks.figures import percentile
from tests.faults import figures
from tests.faults.ledger import CLOSED
from tests.faults.tree import Tree
from tests.rabbit import running_node
from tests.servers import running_server


@pytest.fixture(scope="session")
def rabbit_node():
    """A node of their own, for these tests stop it and fill it: what others have left there must not slow it down."""
    with running_node() as node:
        yield node


@pytest.fixture(scope="module")
def server():
    """A redis-server that loses nothing when it is killed."""
    with running_server(appendonly=True, options=("--appendfsync", "always")) as running:
        yield running


@pytest.fixture(scope="module")
def settings():
    """What a module's tree has on top of the settings of all; a module may say otherwise."""
    return {}


@pytest.fixture(scope="module")
def shared_tree(server, settings):
    made = Tree(server.url, **settings)
    yield made
    made.remove()


@pytest.fixture
async def tree(shared_tree):
    """The module's tree, running; it is left as the test leaves it."""
    shared_tree.ledger.new_page()
    if shared_tree.process is None or shared_tree.process.poll() is not None:
        shared_tree.start()
    await shared_tree.ready()
    return shared_tree


@pytest.fixture
async def app(shared_tree):
    async with shared_tree.client() as made:
        yield made


@pytest.fixture
def measured(record_property):
    """Note seconds, of which the summary of the run shows the median, the 99th percentile and the longest."""

    def note(what, seconds):
        found = {"median": percentile(seconds, 0.5), "p99": percentile(seconds, 0.99), "longest": max(seconds)}
        text = ", ".join(f"{name} {value * 1000:.0f} ms" for name, value in found.items())
        record_property("measured", f"{what}: {text} of {len(seconds)}")
        return found["p99"]

    return note


TABLE = os.environ.get("FAULTS_TABLE", "")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    CLOSED.clear()
    try:
        return (yield)
    finally:
        if CLOSED:
            item.user_properties.append(("figures", figures.total(CLOSED.values())))


@pytest.hookimpl(wrapper=True)
def pytest_report_teststatus(report):
    """With a report, a line for each test in the place of its letter."""
    outcome, letter, word = yield
    if TABLE and report.when == "call" and (told := dict(report.user_properties).get("figures")):
        letter = f"\n{figures.title(report.nodeid)}: {told}{'' if report.passed else ': FAILED'}\n"
    return outcome, letter, word


def pytest_terminal_summary(terminalreporter):
    reports = [each for outcome in ("passed", "failed") for each in terminalreporter.getreports(outcome)]
    lines = [text for each in reports for name, text in each.user_properties if name == "measured"]
    if lines:
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.line(line)
    found = {
        figures.title(each.nodeid): told for each in reports if (told := dict(each.user_properties).get("figures"))
    }
    if TABLE and found:
        terminalreporter.section("faults")
        page = figures.renewed("\n".join((figures.BEGIN, figures.END)), found)
        for line in page.splitlines()[1:-1]:
            terminalreporter.line(line)
        if TABLE != "-":
            path = Path(TABLE)
            path.write_text(figures.renewed(path.read_text(), found))
