"""What a channel is whichever client speaks: calls that are answered in order, and an end that everybody is told of."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import trio

from chicory.errors import BrokerError, BrokerUnavailable
from chicory.links.amqp_frames import Delivered
from chicory.links.amqp_methods import Request
from chicory.links.amqp_port import Answer, Batch


class Line(Protocol):
    """What a channel needs of its connection."""

    frame_max: int

    def fail(self, error: BrokerError) -> None:
        """End the connection."""
        ...

    def forget(self, number: int) -> None:
        """The channel's number is free."""
        ...


class BaseChannel(ABC):
    """See `amqp_port.Channel`."""

    def __init__(self, line: Line, number: int) -> None:
        self.number = number
        self.error: BrokerError | None = None
        self.over = trio.Event()
        self.delivered: Callable[[Delivered], None] = lambda _: None
        self.cancelled: Callable[[str], None] = lambda _: None
        self.ended: Callable[[BrokerError], None] = lambda _: None
        self._line = line
        self._answers: deque[Answer] = deque()

    # -- calls

    async def call(self, method: Request, *, timeout: float) -> Any:
        """See `amqp_port.Channel.call`."""
        return await self.answer(self.ask(method), timeout=timeout)

    @abstractmethod
    def ask(self, method: Request) -> Answer:
        """See `amqp_port.Channel.ask`."""

    async def answer(self, answer: Answer, *, timeout: float) -> Any:
        """See `amqp_port.Channel.answer`."""
        return await answer.wait(timeout, self._line.fail)

    async def answers(self, asked: Sequence[Answer], *, timeout: float) -> list[Any]:
        """See `amqp_port.Channel.answers`."""
        await self.answer(asked[-1], timeout=timeout)
        return [one.value for one in asked]

    def _expect(self) -> Answer:
        """What the next answer but those that are still to come goes to."""
        answer = Answer()
        self._answers.append(answer)
        return answer

    def _give(self, value: Any) -> None:
        if self._answers:
            self._answers.popleft().give(value)

    # -- how it ends

    def close(self) -> None:
        """See `amqp_port.Channel.close`."""
        if self.error is None:
            self._say_goodbye()
            self.end(BrokerUnavailable("the channel is closed"))

    def end(self, error: BrokerError) -> None:
        """It is over: whoever waits is told, and what was published and not confirmed stays unknown."""
        if self.error is not None:
            return
        self.error = error
        self.over.set()
        self.ended(error)
        answers, self._answers = self._answers, deque()
        for answer in answers:
            answer.end(error)
        for batch in self._abandon():
            batch.end(error)

    def _check(self) -> None:
        if self.error is not None:
            raise self.error

    @abstractmethod
    def _say_goodbye(self) -> None:
        """Tell the server, soon, that this is over."""

    @abstractmethod
    def _abandon(self) -> Iterable[Batch]:
        """Let go of the batches of which some fates are not known."""
