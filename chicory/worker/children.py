"""The child processes of a worker, for tasks that must be killed to be stopped."""

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast, final

import trio
from msgspec.structs import replace

from chicory.app import Chicory
from chicory.carried import Carried
from chicory.context import TaskContext
from chicory.errors import ProcessDied, UsageError
from chicory.naming import module_of
from chicory.types import TaskMessage
from chicory.wire import pack, unpack_record
from chicory.worker.ending import Ended
from chicory.worker.frames import PREFIX, Answer, Call, frame, read_answer
from chicory.worker.records import tell

_CHUNK = 65536


@final
class Children:
    """Children of one worker, each with a run at a time; started when one is needed, and kept."""

    def __init__(self) -> None:
        self._idle: list[_Child] = []

    async def call(
        self,
        carried: Carried | None,
        message: TaskMessage,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """Run *message* in a child, which is killed when this is cancelled.

        The arguments are those of the message, as they travel; a context among *args* says the rest.
        carried: what of the present context goes along, as it does into a thread.
        """
        if carried is not None:
            message = replace(message, headers=carried.headers(message.headers))
        context = cast("TaskContext[Any]", args[0]) if args and isinstance(args[0], TaskContext) else None
        call = Call(
            module_of(function),
            sys.path,
            pack(message),
            1 if context is None else context.deliveries,
            None if context is None else context.deadline,
            logging.getLogger().level,
        )
        child = await self._child()
        try:
            answer = await child.ask(call, context)
        except BaseException:
            await child.kill()
            raise
        if answer is None:
            raise ProcessDied(await child.kill())
        self._idle.append(child)
        if answer.value is not None:
            return unpack_record(answer.value).value
        ending = answer.raised or answer.snoozed
        assert ending is not None
        raise Ended(ending)

    async def aclose(self) -> None:
        """Kill all that are idle."""
        while self._idle:
            await self._idle.pop().kill()

    async def _child(self) -> "_Child":
        while self._idle:
            child = self._idle.pop()
            if not child.gone():
                return child
            await child.kill()
        return await _start()


@final
class _Child:
    def __init__(self, process: trio.Process, sock: socket.socket) -> None:
        self._process = process
        self._sock = sock
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._heard = bytearray()

    def gone(self) -> bool:
        """Whether it has died since its last answer."""
        try:
            return not self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    async def ask(self, call: Call, context: TaskContext[Any] | None) -> Answer | None:
        """The answer to *call*; None when the child has died over it."""
        answer: Answer | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_together)
            with suppress(trio.BrokenResourceError):
                await self._stream.send_all(frame(call))
                while (answer := await self._receive()) is not None and not answer.final:
                    if answer.record is not None:
                        tell(answer.record, self._process.pid)
                    elif answer.progress is not None and context is not None and context.report is not None:
                        context.report(context.task_id, answer.progress)
            nursery.cancel_scope.cancel()
        return answer

    async def kill(self) -> int:
        """Kill it and all it has started; returns its exit status."""
        with trio.CancelScope(shield=True):
            # Before it is waited for: until then its number cannot be another's.
            self._kill_group()
            await self._process.wait()
            await self._stream.aclose()
        assert self._process.returncode is not None
        return self._process.returncode

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def _end_together(self) -> None:
        """Kill what a child that died has left: it may hold the socket, whose end is then never seen."""
        descriptor = os.pidfd_open(self._process.pid)
        try:
            await trio.lowlevel.wait_readable(descriptor)
        finally:
            os.close(descriptor)
        self._kill_group()

    async def _receive(self) -> Answer | None:
        if not await self._fill(PREFIX):
            return None
        length = PREFIX + int.from_bytes(self._heard[:PREFIX], "big")
        if not await self._fill(length):
            return None
        body = bytes(self._heard[PREFIX:length])
        del self._heard[:length]
        return read_answer(body)

    async def _fill(self, length: int) -> bool:
        while len(self._heard) < length:
            chunk = await self._stream.receive_some(_CHUNK)
            if not chunk:
                return False
            self._heard += chunk
        return True


def refuse_children(app: Chicory) -> None:
    """UsageError where *app* has tasks for children and this system cannot watch a process without reaping it."""
    name = next((name for name, task in app.tasks.items() if task.settings.process), None)
    if name is None:
        return
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError) as error:
        raise UsageError(
            f"task {name!r}: process=True needs pidfds, as Linux 5.3 and newer have them; run this worker there, or "
            "leave out process=True"
        ) from error


async def _start() -> _Child:
    """A fresh interpreter in a session of its own: nothing of the worker is in it but where its output goes."""
    ours, its = socket.socketpair()
    try:
        with its:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "chicory.worker.child", str(its.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[its.fileno()],
                start_new_session=True,
            )
    except BaseException:
        ours.close()
        raise
    ours.setblocking(False)
    return _Child(process, ours)
