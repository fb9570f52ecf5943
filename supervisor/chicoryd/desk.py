"""Where the daemon receives its operators: requests become events, and answers go to who asked."""

import itertools
import os
import selectors
import time
from collections.abc import Callable, Mapping

import attrs

from chicoryd.control import Client, Control
from chicoryd.events import Asked
from chicoryd.roster import Fleet
from chicoryd.status import describe, health

COMMANDS = ("reload", "scale", "quiet", "resume", "restart", "dump")


@attrs.define(eq=False)
class Desk:
    """All clients of the control socket.

    stoppers: those who wait for the end.
    """

    control: Control
    selector: selectors.DefaultSelector
    post: Callable[[Asked], None]
    fleet: Callable[[], Fleet]
    stoppers: list[Client] = attrs.field(factory=list[Client])
    _waiting: dict[int, Client] = attrs.field(factory=dict[int, Client])
    _tickets: "itertools.count[int]" = attrs.field(factory=lambda: itertools.count(1))

    def open(self) -> None:
        """Begin to listen."""
        self.selector.register(self.control.socket, selectors.EVENT_READ, self._accept)

    def reply(self, ticket: int, message: Mapping[str, object]) -> None:
        """Answer whoever asked with *ticket*."""
        client = self._waiting.pop(ticket)
        client.answer(message)
        client.close()

    def _accept(self) -> None:
        client = self.control.accept()
        if client is not None:
            self.selector.register(client.socket, selectors.EVENT_READ, lambda: self._serve(client))

    def _serve(self, client: Client) -> None:
        try:
            request = client.request()
        except ValueError as error:
            self._answer(client, {"error": str(error)})
            return
        if request is None:
            return
        match request.get("command"):
            case "ping":
                self._answer(client, {"pid": os.getpid()})
            case "status":
                self._answer(client, {"pid": os.getpid(), **describe(self.fleet(), time.monotonic())})
            case "health":
                self._answer(client, health(self.fleet(), time.monotonic()))
            case "stop":
                client.answer({"pid": os.getpid()})
                self.selector.unregister(client.socket)
                self.stoppers.append(client)
                self.post(Asked("stop"))
            case str(command) if command in COMMANDS:
                self.selector.unregister(client.socket)
                ticket = next(self._tickets)
                self._waiting[ticket] = client
                self.post(Asked(command, str(request.get("argument", "")), ticket))
            case unknown:
                known = ", ".join(sorted(("ping", "status", "health", "stop", *COMMANDS)))
                self._answer(client, {"error": f"unknown command {unknown!r}; known are {known}"})

    def _answer(self, client: Client, message: Mapping[str, object]) -> None:
        client.answer(message)
        self.selector.unregister(client.socket)
        client.close()
