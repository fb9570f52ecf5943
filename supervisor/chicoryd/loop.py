"""The one loop: turns signals, ends of children, lifelines and requests into events, and performs the actions.

It decides nothing; `fleet.step` does.  It waits in one place and never anywhere else.
"""

import os
import random
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import assert_never

import attrs

from chicoryd.control import Client, Control
from chicoryd.events import (
    Action,
    Asked,
    Event,
    Exited,
    HungUp,
    Kill,
    Log,
    Notify,
    Quit,
    Said,
    Start,
    Started,
    StartFailed,
    Tell,
    Terminate,
    Tick,
)
from chicoryd.fleet import step, wake
from chicoryd.lifeline import Line
from chicoryd.log import Log as Journal
from chicoryd.notify import Notifier
from chicoryd.roster import Fleet
from chicoryd.spawn import Spawner, kill_group, reap
from chicoryd.status import describe

REST = 2.0  # seconds between two looks at the beats of children that are ready
_IGNORED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)  # each would end a process that does not know it
_HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD)


@attrs.define(eq=False)
class Loop:
    """The supervisor at work.  `run` returns the exit code when the fleet is empty."""

    fleet: Fleet
    spawner: Spawner
    control: Control
    notifier: Notifier
    log: Journal
    lines: dict[int, Line] = attrs.field(factory=dict[int, Line])
    stoppers: list[Client] = attrs.field(factory=list[Client])  # who wait for the end
    _selector: selectors.DefaultSelector = attrs.field(factory=selectors.DefaultSelector)
    # Lines of children that are ready bring beats, which can wait: they are looked at all together and not too often,
    # so that the daemon sleeps as long with a hundred workers as with one.
    _beats: selectors.DefaultSelector = attrs.field(factory=selectors.DefaultSelector)
    _wakeup: tuple[socket.socket, socket.socket] = attrs.field(factory=socket.socketpair)
    _rests_until: float | None = None
    _code: int | None = None

    def run(self) -> int:
        """Start the fleet and keep it until it was told to stop."""
        self._listen_to_signals()
        with self._selector, self._beats:
            self._selector.register(self.control.socket, selectors.EVENT_READ, self._accept)
            self._selector.register(self._beats, selectors.EVENT_READ, self._hear_beats)
            self._post(Tick())
            while self._code is None:
                self._turn()
        return self._code

    def _turn(self) -> None:
        instants = [instant for instant in (wake(self.fleet), self._rests_until) if instant is not None]
        timeout = max(min(instants) - time.monotonic(), 0) if instants else None
        for key, _ in self._selector.select(timeout):
            key.data()
        if self._rests_until is not None and time.monotonic() >= self._rests_until:
            self._rests_until = None
            self._selector.register(self._beats, selectors.EVENT_READ, self._hear_beats)
            self._hear_beats()
        self._post(Tick())

    # What comes in.

    def _listen_to_signals(self) -> None:
        """From now until the process ends, signals only write their number into a socket that the loop reads."""
        for end in self._wakeup:
            end.setblocking(False)
        ours, theirs = self._wakeup
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        for number in _HEARD:
            signal.signal(number, _noted)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
        self._selector.register(ours, selectors.EVENT_READ, self._signalled)

    def _signalled(self) -> None:
        for number in self._wakeup[0].recv(4096):
            if number != signal.SIGCHLD:
                self._post(Asked(signal.Signals(number).name))
        # Whatever woke us: when the socket was full, a SIGCHLD may have found no room in it.
        for pid, code in reap(self.lines.__contains__):
            line = self.lines.get(pid)
            if line is not None:
                self._hear(pid, line)  # its last words
                self._forget(pid, line)
            self._post(Exited(pid, code, random.random()))

    def _hear_beats(self) -> None:
        heard = self._beats.select(0)
        for key, _ in heard:
            key.data()
        if heard:
            self._selector.unregister(self._beats)
            self._rests_until = time.monotonic() + REST

    def _hear(self, pid: int, line: Line) -> None:
        if self.lines.get(pid) is not line:
            return  # reaped by what was handled just before, in this same turn
        line.flush()
        for message in line.hear():
            if message.get("t") == "ready":
                self._watch(pid, line, self._beats)
            self._post(Said(pid, message))
        if line.closed:
            self._unwatch(line)
            self._post(HungUp(pid))
        else:
            self._watch(pid, line)

    def _accept(self) -> None:
        client = self.control.accept()
        if client is not None:
            self._selector.register(client.socket, selectors.EVENT_READ, lambda: self._serve(client))

    def _serve(self, client: Client) -> None:
        try:
            request = client.request()
        except ValueError as error:
            client.answer({"error": str(error)})
            self._dismiss(client)
            return
        if request is None:
            return
        match request.get("command"):
            case "ping":
                client.answer({"pid": os.getpid()})
            case "status":
                client.answer({"pid": os.getpid(), **describe(self.fleet, time.monotonic())})
            case "stop":
                client.answer({"pid": os.getpid()})
                self._selector.unregister(client.socket)
                self.stoppers.append(client)
                self._post(Asked("stop"))
                return
            case unknown:
                client.answer({"error": f"unknown command {unknown!r}; known are ping, status and stop"})
        self._dismiss(client)

    def _dismiss(self, client: Client) -> None:
        self._selector.unregister(client.socket)
        client.close()

    # What goes out.

    def _post(self, event: Event) -> None:
        """Let the fleet decide about *event*, and about what its own actions lead to."""
        events = deque([event])
        while events:
            self.fleet, actions = step(self.fleet, events.popleft(), time.monotonic())
            events += [answer for action in actions if (answer := self._perform(action)) is not None]

    def _perform(self, action: Action) -> Event | None:
        match action:
            case Start():
                return self._start(action)
            case Tell(pid, message):
                line = self.lines[pid]
                line.say(message)
                if not line.closed:
                    self._watch(pid, line)
            case Terminate(pid):
                os.kill(pid, signal.SIGTERM)
            case Kill(pid):
                kill_group(pid)
            case Notify(text):
                self.notifier.send(text)
            case Log(text, level):
                self.log(text, level)
            case Quit(code):
                self._code = code
            case _:
                assert_never(action)
        return None

    def _start(self, action: Start) -> Event:
        try:
            pid, line = self.spawner.start(action.role, action.consumer)
        except OSError as error:
            return StartFailed(action.slot, error.strerror or str(error), random.random())
        self.lines[pid] = line
        self._watch(pid, line, self._selector)
        return Started(action.slot, pid)

    def _watch(self, pid: int, line: Line, selector: selectors.DefaultSelector | None = None) -> None:
        """Listen to *line*, in *selector* from now on if one is given; and to its being writable while words wait."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if line.waiting else 0)
        callback: Callable[[], None] = lambda: self._hear(pid, line)  # noqa: E731
        current = next((each for each in (self._selector, self._beats) if line.socket in each.get_map()), None)
        if selector is not None and selector is not current:
            self._unwatch(line)
            selector.register(line.socket, events, callback)
        elif current is not None and current.get_key(line.socket).events != events:
            current.modify(line.socket, events, callback)

    def _unwatch(self, line: Line) -> None:
        for selector in (self._selector, self._beats):
            if line.socket in selector.get_map():
                selector.unregister(line.socket)

    def _forget(self, pid: int, line: Line) -> None:
        self._unwatch(line)
        line.close()
        del self.lines[pid]


def _noted(*_: object) -> None:
    """A signal with a handler writes its number to the wakeup socket; nothing more must happen in here."""
