"""Which queues there are, as their programs declare it."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs

PROGRAMS = Path(__file__).parent / "programs"
ENVIRONMENTS = Path(__file__).parents[2] / "build" / "peers"
OURS = "chicory"

_DECLARED = ("NAME", "REQUIREMENTS", "BROKERS", "AT_LEAST_ONCE", "RATES", "CANNOT")


@attrs.frozen(kw_only=True)
class Peer:
    """A queue.

    key: what it is called on the command line and in the results.
    settings: what its program says of the way it is set up.
    rates: rough tasks per second, to choose how many tasks fill some seconds.
    cannot: workloads that it has not what it takes for, with what is missing.
    """

    key: str
    name: str
    settings: str
    requirements: tuple[str, ...]
    brokers: tuple[str, ...]
    at_least_once: bool
    rates: dict[str, float]
    cannot: dict[str, str]

    @property
    def environment(self) -> Path:
        """Its virtual environment."""
        return ENVIRONMENTS / self.key

    @property
    def python(self) -> str:
        """The interpreter of its environment; ours is the one that runs this."""
        return sys.executable if self.key == OURS else str(self.environment / "bin" / "python")


def roster() -> list[Peer]:
    """All, ours first."""
    keys = sorted(path.stem.removeprefix("with_") for path in PROGRAMS.glob("with_*.py"))
    return [declared(key) for key in sorted(keys, key=lambda key: key != OURS)]


def declared(key: str) -> Peer:
    """The queue of one program, which is read and not run: its imports are in another environment."""
    tree = ast.parse((PROGRAMS / f"with_{key}.py").read_text())
    values: dict[str, Any] = {}
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name in _DECLARED:
                values[name] = ast.literal_eval(value)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value) if name in _DECLARED:
                values[name] = ast.literal_eval(value)
            case _:
                pass
    missing = [name for name in _DECLARED if name not in values]
    if missing:
        raise SystemExit(f"with_{key}.py does not declare {', '.join(missing)}")
    return Peer(
        key=key,
        name=values["NAME"],
        settings=ast.get_docstring(tree) or "",
        requirements=tuple(values["REQUIREMENTS"]),
        brokers=tuple(values["BROKERS"]),
        at_least_once=values["AT_LEAST_ONCE"],
        rates=values["RATES"],
        cannot=values["CANNOT"],
    )


def install(peer: Peer) -> str | None:
    """Make the environment of *peer* if it is not there or has other requirements; returns why it cannot be made."""
    if peer.key == OURS:
        return None
    made = peer.environment / "made.json"
    wanted = json.dumps(peer.requirements)
    if made.exists() and made.read_text() == wanted:
        return None
    pip = [peer.python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *peer.requirements]
    for command in ([sys.executable, "-m", "venv", "--clear", str(peer.environment)], pip):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            return (errors or done.stderr.splitlines() or ["no word why"])[-1]
    made.write_text(wanted)
    return None
