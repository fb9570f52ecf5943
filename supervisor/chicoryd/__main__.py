"""The command line: `chicoryd start | stop | reload | status | ...`."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import click

NOT_RUNNING = 3  # as `systemctl status` has it


def main() -> None:
    """Run the command line.  A wrong one exits 64, as sysexits(3) has it."""
    try:
        code = cli.main(prog_name="chicoryd", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "", err=True)
        code = os.EX_USAGE
    except click.ClickException as error:
        error.show()
        code = os.EX_USAGE
    except (click.Abort, KeyboardInterrupt):
        code = 130
    sys.exit(code)


def _config(command: Callable[..., object]) -> Callable[..., object]:
    return click.option(
        "-c",
        "--config",
        type=click.Path(path_type=Path),
        envvar="CHICORY_CONFIG",
        required=True,
        help="The configuration file, such as conf/chicory.toml.",
    )(command)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Run Chicory's server, scheduler and workers, and keep them running."""


@cli.command()
@_config
def start(config: Path) -> int:
    """Start the daemon in the foreground.  SIGTERM and Ctrl-C stop it; Ctrl-C again hurries."""
    from chicoryd import daemon
    from chicoryd.spawn import Entries

    return daemon.start(config, os.environ, Entries())


@cli.command()
@_config
@click.option("--json", "as_json", is_flag=True, help="Print what became of each running task, for programs.")
def stop(config: Path, as_json: bool) -> int:
    """Stop the daemon: running tasks may finish.  Returns when it is gone."""
    import json

    from chicoryd.control import ask_to_stop

    def stop(state_dir: Path) -> None:
        answer = ask_to_stop(state_dir)
        _say(json.dumps(answer, indent=2) if as_json else f"stopped, exit {answer['exit']}")

    return _talk(config, stop)


@cli.command()
@_config
def reload(config: Path) -> int:
    """Take over new code and new settings, worker by worker.  Exit 1 when they are refused and the old ones stay."""
    return _ask(config, "reload", timeout=None)


@cli.command()
@_config
@click.argument("workers", type=click.IntRange(1, 1024))
def scale(config: Path, workers: int) -> int:
    """Run so many WORKERS, until the settings are read again."""
    return _ask(config, "scale", str(workers))


@cli.command()
@_config
def quiet(config: Path) -> int:
    """Have the workers fetch nothing; what runs goes on."""
    return _ask(config, "quiet")


@cli.command()
@_config
def resume(config: Path) -> int:
    """Have the workers fetch again."""
    return _ask(config, "resume")


@cli.command()
@_config
@click.argument("slot")
def restart(config: Path, slot: str) -> int:
    """Replace the child in SLOT, such as worker-1; a worker's successor is ready before it leaves."""
    return _ask(config, "restart", slot)


@cli.command()
@_config
def dump(config: Path) -> int:
    """Write all that is known about every child to the log."""
    return _ask(config, "dump")


@cli.command()
@_config
@click.option("--live", "wanted", flag_value="live", help="Ask only whether it answers.")
@click.option("--ready", "wanted", flag_value="ready", default=True, help="Ask whether it works; the default.")
@click.option("--json", "as_json", is_flag=True, help="Print everything, for programs.")
def health(config: Path, wanted: str, as_json: bool) -> int:
    """Exit 0 when all is well with the daemon, 1 when it is not; the reasons are printed."""
    import json

    from chicoryd.control import Refused, ask

    def examine(state_dir: Path) -> None:
        answer = ask(state_dir, "health")
        text = "\n".join(["ready" if answer["ready"] else "not ready", *answer["reasons"]])
        _say(json.dumps(answer) if as_json else text)
        if not answer[wanted]:
            raise Refused("not ready")

    return _talk(config, examine)


@cli.command()
@_config
@click.option("--json", "as_json", is_flag=True, help="Print everything, for programs.")
def status(config: Path, as_json: bool) -> int:
    """Show what runs; exit 3 when nothing does."""
    import json

    from chicoryd.control import ask
    from chicoryd.status import table

    def show(state_dir: Path) -> None:
        answer = ask(state_dir, "status")
        _say(json.dumps(answer, indent=2) if as_json else table(answer))

    return _talk(config, show)


@cli.command()
@_config
def check(config: Path) -> int:
    """Check the configuration, import the app and reach the broker, and start nothing."""
    from chicoryd import daemon
    from chicoryd.spawn import Entries

    return daemon.examine(config, os.environ, Entries())


def _ask(config: Path, command: str, argument: str = "", timeout: float | None = 5.0) -> int:
    """Ask the daemon of *config* for something and print its answer; the exit code."""
    from chicoryd.control import ask

    return _talk(config, lambda state_dir: _say(ask(state_dir, command, argument, timeout)["done"]))


def _talk(config: Path, conversation: Callable[[Path], None]) -> int:
    """Have a *conversation* with the daemon of *config*; the exit code."""
    from chicoryd.control import NotRunning, Refused
    from chicoryd.settings import locate

    state_dir, problem = locate(config, os.environ)
    try:
        conversation(state_dir)
    except NotRunning as error:
        return _fail(error, NOT_RUNNING) if problem is None else _fail(problem, os.EX_CONFIG)
    except Refused as error:
        return _fail(error, 1)
    except PermissionError as error:
        return _fail(error, os.EX_NOPERM)
    except TimeoutError:
        return _fail("the daemon does not answer; is it stopped in a debugger or by SIGSTOP?", os.EX_UNAVAILABLE)
    if problem is not None:
        click.echo(f"chicoryd: {problem}; the daemon goes by what it read before", err=True)
    return 0


def _say(text: str) -> None:
    click.echo(text)


def _fail(why: object, code: int) -> int:
    click.echo(f"chicoryd: {why}", err=True)
    return code


if __name__ == "__main__":
    main()
