"""The command line, `chicory`: one file per command in this package, imported when the command is used.

A command `name` is what the module `name` calls `name`; the first line of the module's docstring is its summary.  So a
file is all it takes to add one, and `chicory --help` imports nothing but click.

Exit codes: 0 done, 64 wrong usage, 66 the app does not import, 69 the broker refuses or cannot be reached, 70 anything
that is Chicory's own fault, 78 wrong settings; 130 after Ctrl-C.
"""

import ast
import importlib
import importlib.util
import pkgutil
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from importlib.abc import InspectLoader
from pathlib import Path
from typing import Any, NoReturn

import click

from chicory.errors import ChicoryError, did_you_mean
from chicory.exits import INTERRUPTED, USAGE, exit_code
from chicory.groups import sole


class Commands(click.Group):
    """The commands found in this package."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(found.name for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command: object = getattr(importlib.import_module(f"{__name__}.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            ctx.fail(f"no command is called {args[0]!r}{did_you_mean(args[0], known)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary(name)) for name in self.list_commands(ctx)])

    # Here and not around the call in `main`, so that tests which call the group meet the same codes.
    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run, and exit with a code that says whose turn it is."""

        extra["windows_expand_args"] = windows_expand_args
        run = partial(super().main, args, prog_name, complete_var, standalone_mode=False, **extra)
        return leave(run) if standalone_mode else run()


def leave(call: Callable[[], object]) -> NoReturn:
    """Make *call*, say what went wrong in one line, and exit."""
    try:
        result = call()
    except click.UsageError as error:
        error.show()
        sys.exit(USAGE)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("Interrupted.", err=True)
        sys.exit(INTERRUPTED)
    except Exception as error:
        cause = sole(error)
        if isinstance(cause, ChicoryError):
            click.echo(f"Error: {' '.join(str(cause).split())}", err=True)
        else:
            traceback.print_exception(error)
        sys.exit(exit_code(cause))
    sys.exit(result if isinstance(result, int) else 0)


def summary(name: str) -> str:
    """What the command's module says of itself, read without importing it."""
    spec = importlib.util.find_spec(f"{__name__}.{name}")
    assert spec is not None, f"there is a command {name}"
    if isinstance(spec.loader, InspectLoader):
        source = spec.loader.get_source(spec.name)
    else:  # pytest's, which rewrites assertions and has no source to give
        source = Path(spec.origin or "").read_text()
    doc = ast.get_docstring(ast.parse(source or "")) or ""
    return doc.partition("\n")[0]


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="chicoryd", prog_name="chicory")
def chicory() -> None:
    """Chicory, a distributed task queue on trio."""


def main() -> NoReturn:
    """The console script."""
    chicory.main(prog_name="chicory")
    raise AssertionError("click always exits")
