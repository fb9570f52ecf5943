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

from chicoryd.control import Control
from chicoryd.desk import Desk
from chicoryd.events import (
    Abandon,
    Abort,
    Action,
    Asked,
    Event,
    Exited,
    HaveRead,
    HungUp,
    Kill,
    Log,
    Message,
    Notify,
    Quit,
    Read,
    Reopen,
    Reply,
    Said,
    Start,
    Started,
    StartFailed,
    Tell,
    Terminate,
    Tick,
    Woke,
)
from chicoryd.fleet import step, wake
from chicoryd.lifeline import Line
from chicoryd.log import Log as Journal
from chicoryd.memory import MemoryKiller
from chicoryd.notify import Notifier
from chicoryd.plan import Plan
from chicoryd.roster import Fleet
from chicoryd.settings import SettingsError
from chicoryd.spawn import Spawner, kill_group, reap

REST = 2.0  # seconds between two looks at the beats of children that are ready
STANDSTILL = 2.0  # seconds of lateness after which it is the supervisor that was not there
_ASKING = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_HEARD = (*_ASKING, signal.SIGCHLD, signal.SIGCONT)
_IGNORED = (signal.SIGWINCH,)


@attrs.define(eq=False)
class Loop:
    """The supervisor at work.  `run` returns the exit code when the fleet is empty.

    reread: the settings as they are now; SettingsError when they cannot be used.
    """

    fleet: Fleet
    spawner: Spawner
    control: Control
    notifier: Notifier
    log: Journal
    reread: Callable[[], Plan]
    killer: MemoryKiller = attrs.field(factory=MemoryKiller)
    lines: dict[int, Line] = attrs.field(factory=dict[int, Line])
    unborn: dict[str, Line] = attrs.field(factory=dict[str, Line])  # by consumer, until the child says its pid
    desk: Desk = attrs.field(init=False)
    _selector: selectors.DefaultSelector = attrs.field(factory=selectors.DefaultSelector)
    # Lines of children that are ready bring beats, which can wait: they are looked at all together and not too often,
    # so that the daemon sleeps as long with a hundred workers as with one.
    _beats: selectors.DefaultSelector = attrs.field(factory=selectors.DefaultSelector)
    _wakeup: tuple[socket.socket, socket.socket] = attrs.field(factory=socket.socketpair)
    _rests_until: float | None = None
    _code: int | None = None

    def __attrs_post_init__(self) -> None:
        self.desk = Desk(self.control, self._selector, self._post, lambda: self.fleet)

    def run(self) -> int:
        """Start the fleet and keep it until it was told to stop."""
        self._listen_to_signals()
        with self._selector, self._beats:
            self.desk.open()
            self._selector.register(self._beats, selectors.EVENT_READ, self._hear_beats)
            self._post(Tick())
            while self._code is None:
                self._turn()
        # An interpreter that ends puts the default handlers back, and a late signal would then make of a clean end a
        # death by that signal.  What is ignored stays ignored.
        for number in _ASKING:
            signal.signal(number, signal.SIG_IGN)
        return self._code

    def _turn(self) -> None:
        instants = [instant for instant in (wake(self.fleet), self._rests_until) if instant is not None]
        before = time.monotonic()
        timeout = max(min(instants) - before, 0) if instants else None
        # A timeout says nothing about what came in since it ended, as it may have long ago.
        ready = self._selector.select(timeout) or self._selector.select(0)
        late = time.monotonic() - before - timeout if timeout is not None else 0.0
        if late > STANDSTILL:
            self._wake_up(late)
        for key, _ in ready:
            key.data()
        now, due = time.monotonic(), wake(self.fleet)
        if self._rests_until is not None and (now >= self._rests_until or (due is not None and now >= due)):
            self._stop_resting()
            self._hear_beats()
        self._post(Tick())

    def _wake_up(self, seconds: float) -> None:
        """After a standstill everything that was said meanwhile is heard before anybody is judged."""
        self._post(Woke(seconds))
        if self._rests_until is not None:
            self._stop_resting()

    def _stop_resting(self) -> None:
        self._rests_until = None
        self._selector.register(self._beats, selectors.EVENT_READ, self._hear_beats)

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
            if number == signal.SIGCONT:
                self._wake_up(0.0)
            elif number != signal.SIGCHLD:
                self._post(Asked(signal.Signals(number).name))
        # Whatever woke us: when the socket was full, a SIGCHLD may have found no room in it.
        for pid, code in reap(self._ours):
            line = self.lines.get(pid)
            if line is not None:
                self._hear(pid, line)  # its last words
                self._forget(pid, line)
            starved = code == -signal.SIGKILL and self.killer.struck()
            self._post(Exited(pid, code, random.random(), starved))

    def _ours(self, pid: int) -> bool:
        """Whether *pid* is a child of the fleet's, which may not have been heard to say that it was born."""
        if pid not in self.lines:
            for consumer, line in list(self.unborn.items()):
                self._hear_unborn(consumer, line)
        return pid in self.lines

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
        self._tell(pid, line, line.hear())
        if line.closed:
            self._unwatch(line)
            self._post(HungUp(pid))
        else:
            self._watch(pid, line)

    def _tell(self, pid: int, line: Line, messages: list[Message]) -> None:
        for message in messages:
            if message.get("t") == "ready":
                self._watch(pid, line, self._beats)
            self._post(Said(pid, message))

    def _hear_unborn(self, consumer: str, line: Line) -> None:
        """A child that a template was asked for says its pid first, or hangs up because it could not be forked."""
        if self.unborn.get(consumer) is not line:
            return
        messages = line.hear()
        pid = messages[0].get("pid") if messages else None
        if isinstance(pid, int):
            del self.unborn[consumer]
            self._unwatch(line)
            self.lines[pid] = line
            self._watch(pid, line, self._selector)
            self._post(Started(consumer, pid, random.random()))
            self._tell(pid, line, messages[1:])
            self._hear(pid, line)
        elif line.closed:
            self._post(self._abandon(consumer, "its template did not fork it"))

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
            case Abandon(consumer):
                return self._abandon(consumer, "its template does not answer")
            case Tell(pid, message):
                line = self.lines[pid]
                line.say(message)
                if not line.closed:
                    self._watch(pid, line)
            case Terminate(pid):
                os.kill(pid, signal.SIGTERM)
            case Abort(pid):
                os.kill(pid, signal.SIGABRT)
            case Kill(pid):
                kill_group(pid)
            case Read():
                try:
                    return HaveRead(self.reread())
                except SettingsError as error:
                    return HaveRead(None, str(error))
            case Notify(text):
                self.notifier.send(text)
            case Reply(ticket, message):
                self.desk.reply(ticket, message)
            case Log(text, level):
                self.log(text, level)
            case Reopen():
                self.log.reopen()
            case Quit(code):
                self._code = code
            case _:
                assert_never(action)
        return None

    def _start(self, action: Start) -> Event | None:
        try:
            if action.template is not None:
                line = self.unborn[action.consumer] = self.spawner.fork(action, self.lines[action.template])
                hear: Callable[[], None] = lambda: self._hear_unborn(action.consumer, line)  # noqa: E731
                self._selector.register(line.socket, selectors.EVENT_READ, hear)
                return None
            pid, line = self.spawner.start(action)
        except OSError as error:
            return StartFailed(action.consumer, error.strerror or str(error), random.random())
        self.lines[pid] = line
        self._watch(pid, line, self._selector)
        return Started(action.consumer, pid, random.random())

    def _abandon(self, consumer: str, why: str) -> Event:
        """Who was never heard of is told nothing either: should it be born after all, its lifeline is dead."""
        line = self.unborn.pop(consumer)
        self._unwatch(line)
        line.close()
        return StartFailed(consumer, why, random.random())

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
