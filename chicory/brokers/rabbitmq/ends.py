"""What the broker has open in one trio run, apart from its workers' own connections."""

from typing import TYPE_CHECKING

import trio

from chicory.brokers.rabbitmq.cancellations import CancelList
from chicory.brokers.rabbitmq.line import Line
from chicory.brokers.rabbitmq.publisher import Publisher
from chicory.brokers.rabbitmq.register import Register
from chicory.brokers.rabbitmq.route import Route
from chicory.brokers.rabbitmq.topology import SCHEDULES, Lists
from chicory.brokers.rabbitmq.uniques import Uniques
from chicory.brokers.rabbitmq.workers import WorkerList
from chicory.config import RabbitMQBrokerConfig

if TYPE_CHECKING:
    from chicory.brokers.rabbitmq.consumer import RabbitMQConsumer


class Ends:
    """For publishing, for everything that is neither publishing nor working, for schedules, and for lists.

    consumers: the workers of this run.  letters_turn: whose turn it is with the dead letters.
    """

    def __init__(self, route: Route, config: RabbitMQBrokerConfig, lists: Lists) -> None:
        self.publisher = Publisher(Line(route, config, "chicory publisher"), config)
        self.desk = Line(route, config, "chicory desk")
        self.register = Register(Line(route, config, "chicory schedules"), config, SCHEDULES)
        self._turns = Line(route, config, "chicory lists")
        self.cancelled = CancelList(self.publisher, self._turns, lists, config)
        self.workers = WorkerList(self.publisher, self._turns, self.desk, lists, config)
        self.uniques = Uniques(self._turns, self.desk, config)
        self.consumers: set[RabbitMQConsumer] = set()
        self.letters_turn = trio.Lock()
        self._run = trio.lowlevel.current_trio_token()

    def close(self) -> None:
        """Close what is open; nobody may be publishing."""
        # In another run there is nothing to close: connections end with theirs, or are a parent's of this process.
        if self._run is trio.lowlevel.current_trio_token():
            self.publisher.close()
            self.desk.close()
            self.register.line.close()
            self._turns.close()
