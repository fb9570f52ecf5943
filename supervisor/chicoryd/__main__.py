"""The command line: `chicoryd start | stop | status | check`."""

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
def stop(config: Path) -> int:
    """Stop the daemon: running tasks may finish.  Returns when it is gone."""
    from chicoryd.control import ask_to_stop

    return _talk(config, lambda state_dir: _say(f"stopped, exit {ask_to_stop(state_dir)}"))


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


def _talk(config: Path, conversation: Callable[[Path], None]) -> int:
    """Have a *conversation* with the daemon of *config*; the exit code."""
    from chicoryd.control import NotRunning
    from chicoryd.settings import SettingsError, load

    try:
        conversation(load(config, os.environ).state_dir)
    except SettingsError as error:
        return _fail(error, os.EX_CONFIG)
    except NotRunning as error:
        return _fail(error, NOT_RUNNING)
    except PermissionError as error:
        return _fail(error, os.EX_NOPERM)
    except TimeoutError:
        return _fail("the daemon does not answer; is it stopped in a debugger or by SIGSTOP?", os.EX_UNAVAILABLE)
    return 0


def _say(text: str) -> None:
    click.echo(text)


def _fail(why: object, code: int) -> int:
    click.echo(f"chicoryd: {why}", err=True)
    return code


if __name__ == "__main__":
    main()
