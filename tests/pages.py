"""The code in the pages users read: its blocks, and whether what they name exists."""

import ast
import re
import tomllib
from pathlib import Path

import attrs
import click

ROOT = Path(__file__).parent.parent

# What a shell line may start with, besides our own commands.
FOREIGN = ("cd", "export", "pip", "python")


@attrs.frozen
class Block:
    """One fenced block of *page*; *line* is where its text begins, 1-based."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path, *languages: str) -> list[Block]:
    """The blocks of *page* in these languages, in order."""
    found: list[Block] = []
    language, start, lines = None, 0, []
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if not line.startswith("```"):
            lines.append(line)
        elif language is None:
            language, start, lines = line[3:].strip(), number + 1, []
        else:
            found.append(Block(page, start, language, "\n".join(lines) + "\n"))
            language = None
    assert language is None, f"{page}:{start}: a block without an end"
    return [block for block in found if block.language in languages]


async def run(block: Block, namespace: dict) -> None:
    """Run a Python block in *namespace*, as the body of an async function could run it."""
    source = "\n" * (block.line - 1) + block.text
    code = compile(source, str(block.page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    waiting = eval(code, namespace)
    if waiting is not None:
        await waiting


def commands(block: Block) -> list[list[str]]:
    """The command lines of a shell block as words; comments, output and line ends are left out."""
    lines = block.text.splitlines()
    if block.language == "console":
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    words = [line.partition(" #")[0].split() for line in lines if not line.startswith("#")]
    return [[word.strip("'\"") for word in line] for line in words if line]


def check_command(words: list[str]) -> None:
    """Fail when *words* name a target, command, option, extra or variable that does not exist."""
    from chicory.config.options import options

    variables = {option.variable for option in options().values()}
    while words and (assigned := re.fullmatch(r"(CHICORY_\w+)=.*", words[0])):
        assert assigned[1] in variables, f"there is no variable {assigned[1]}"
        words = words[1:]
    if not words:
        return
    program, *rest = words
    match program:
        case "make":
            assert set(rest) <= set(targets()), f"no target of the Makefile: {rest}"
        case "chicory":
            from chicory.cli import chicory

            check_click(chicory, rest)
        case "chicoryd":
            from chicoryd.__main__ import cli

            check_click(cli, rest)
        case "export":
            check_command(rest)
        case "pip":
            assert rest[0] == "install", rest
            assert set(re.findall(r"[\w-]+", rest[1].partition("[")[2])) <= set(extras()), f"no such extra: {rest}"
        case _:
            assert program in FOREIGN, f"an unknown program: {program}"


def check_click(command: click.Command, words: list[str]) -> None:
    """Fail when *words* are not what *command* takes; nothing is run."""
    context = click.Context(command, info_name=command.name)
    while isinstance(command, click.Group):
        name, *words = words
        found = command.get_command(context, name)
        assert found is not None, f"{command.name} has no command {name!r}"
        command, context = found, click.Context(found, info_name=name, parent=context)
    # Files that an example names need not exist here.
    for parameter in command.params:
        if isinstance(parameter.type, click.Path):
            parameter.type = click.STRING
    command.make_parser(context).parse_args(list(words))


def targets() -> list[str]:
    """What the Makefile makes."""
    return re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)


def extras() -> list[str]:
    """What may stand in brackets behind the distribution's name."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        return list(tomllib.load(file)["project"]["optional-dependencies"])


def links(page: Path) -> list[Path]:
    """The files that *page* links to."""
    found = re.findall(r"\]\(([^)#]+)", page.read_text())
    return [page.parent / target for target in found if "://" not in target]
