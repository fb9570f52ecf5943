"""A daemon from its settings: takes its state directory, runs the loop, and leaves the directory as it was."""

import contextlib
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from chicoryd.control import Control, runs
from chicoryd.log import Log
from chicoryd.loop import Loop
from chicoryd.notify import Notifier, watchdog
from chicoryd.pidfile import AlreadyRunning, Claim
from chicoryd.plan import Plan
from chicoryd.roster import muster
from chicoryd.settings import Settings, SettingsError, load
from chicoryd.sink import say
from chicoryd.snapshot import Snapshots
from chicoryd.spawn import Entries, Spawner, children, prepare, sweep


def check(config: Path, flags: tuple[str, ...], environ: Mapping[str, str], entries: Entries) -> int:
    """Have a child check the configuration, and more with *flags*; its exit code.  It says itself what is wrong."""
    return Spawner(entries, config.absolute(), environ, Path(os.devnull)).check(*flags)


def examine(config: Path, environ: Mapping[str, str], entries: Entries) -> int:
    """Check all that can be checked without starting anything: the embedded broker only where it runs already."""
    flags = ("--app", "--broker")
    with contextlib.suppress(SettingsError):  # the child says it better
        settings = load(config, environ)
        if settings.embedded and not runs(settings.state_dir):
            flags = ("--app",)
    return check(config, flags, environ, entries)


def start(config: Path, environ: Mapping[str, str], entries: Entries) -> int:
    """Run the daemon of *config* until it is told to stop; the exit code."""
    # Until the loop listens; a rotation that comes so early is noticed by the file's having moved.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if code := check(config, ("--app",), environ, entries):
        return code
    try:
        settings = load(config, environ)
        # An embedded broker is not up yet; whether it comes up is seen soon enough.
        if (
            settings.require_broker
            and not settings.embedded
            and (code := check(config, ("--broker",), environ, entries))
        ):
            return code
        return _serve(settings, environ, entries)
    except SettingsError as error:
        print(f"chicoryd: {error}", file=sys.stderr)
        return os.EX_CONFIG
    except AlreadyRunning as error:
        print(f"chicoryd: {error}", file=sys.stderr)
        return os.EX_TEMPFAIL


def _serve(settings: Settings, environ: Mapping[str, str], entries: Entries) -> int:
    log = Log(settings.log_format, settings.log_file)
    state_dir = settings.state_dir
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        claim = Claim(state_dir)
        if problem := log.problem():
            raise SettingsError(problem)
        control = Control(state_dir)
    except OSError as error:
        raise SettingsError(
            f"cannot use the state directory {state_dir}: {error.strerror}; set supervisor.state_dir to another"
        ) from error
    try:
        claim.write()
    except OSError as error:  # it is for people only, and a full disk must not stop the work
        log(f"cannot write the pid file: {error}", "warning")
    theirs = children()  # of whatever became this daemon by exec, as a start script does
    prepare()
    name = identity()

    copies = Snapshots(settings.config)

    def plan(kept: Path | None = None) -> Plan:
        try:
            copy = copies.take(kept)
        except OSError as error:
            raise SettingsError(f"cannot read {settings.config}: {error.strerror}") from error
        return load(settings.config, environ, copy).plan(name, watchdog(environ), copy)

    log(f"starting {settings.workers} workers from {settings.config}, state in {state_dir}, pid {os.getpid()}")
    words = state_dir / "last-words"
    words.unlink(missing_ok=True)
    spawner = Spawner(entries, settings.config, environ, words)
    loop = Loop(
        muster(plan(), time.monotonic()),
        spawner,
        control,
        Notifier(environ),
        log,
        lambda: plan(Path(loop.fleet.plan.settings)),
    )
    code = loop.run()
    if swept := sweep(theirs):
        log(f"killed {swept} processes that tasks had left behind", "warning")
    # Whoever waits for the end may start the next daemon at once, so the way is cleared before they are told.
    control.close()
    claim.release()
    log(f"stopped, exit {code}")
    for client in loop.desk.stoppers:
        client.answer({"exit": code, "workers": loop.fleet.drained})
        client.close()
    # What kept the daemon from ever working comes last, where people and service managers look.
    with contextlib.suppress(OSError):
        say(words.read_text())
        words.unlink()
    return code


def identity() -> str:
    """`host:boot:supervisor`, of which the last part is new each time."""
    host = re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    except OSError:
        boot = "00000000"
    return f"{host}:{boot}:{os.urandom(4).hex()}"
