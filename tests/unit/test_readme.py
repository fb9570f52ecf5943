"""The README's program, its commands and its promises about names."""

import os
import re

import trio

from chicory import Worker
from tests.pages import ROOT, blocks, commands, run, targets

README = ROOT / "README.md"


async def test_the_program_prints_what_the_readme_says(monkeypatch, capsys, tmp_path):
    for name in [name for name in os.environ if name.startswith("CHICORY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CHICORY_BROKER_TYPE", "memory")
    monkeypatch.chdir(tmp_path)
    (program,) = blocks(README, "python")
    names = {"__name__": "tasks"}
    await run(program, names)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Worker(names["app"]).run)
        await names["main"]()
        nursery.cancel_scope.cancel()

    assert capsys.readouterr().out == "42\n"
    assert "$ python tasks.py\n42\n" in README.read_text()


def test_the_first_screen_has_the_two_commands():
    first = commands(blocks(README, "console")[0])

    assert first == [["make", "run"], ["make", "test"]]


def test_every_target_says_what_it_does():
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)

    assert phony
    assert sorted(targets()) == sorted(phony[1].split())
