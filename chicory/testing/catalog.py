"""How a drain runs tasks: synchronous ones at its desk, and with their exceptions kept for the test."""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from functools import partial
from typing import Any

import attrs
import trio

from chicory.app import Chicory
from chicory.config import WorkerConfig
from chicory.task import Task
from chicory.testing.desk import Desk, time_stands
from chicory.types import TaskMessage
from chicory.worker.flavors import Flavors
from chicory.worker.plan import Catalog, Plan


class ObservedCatalog(Catalog):
    """See Catalog.  raised: what each task raised last, by its id."""

    def __init__(
        self,
        app: Chicory,
        config: WorkerConfig,
        flavors: Flavors,
        *,
        desk: Desk,
        raised: MutableMapping[str, BaseException],
    ) -> None:
        super().__init__(app, config, flavors)
        self._desk = desk
        self._raised = raised

    def _plan(self, task: Task[..., Any]) -> Plan:
        plan = super()._plan(task)
        return attrs.evolve(plan, elsewhere=partial(self._observed, plan), plain=False)

    async def _observed(
        self,
        plan: Plan,
        message: TaskMessage,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Any:
        try:
            if not plan.task.is_async:
                return await self._desk.call(partial(function, *args, **kwargs))
            if plan.elsewhere is None:
                return await function(*args, **kwargs)
            with time_stands():
                return await plan.elsewhere(message, function, args, kwargs)
        except trio.Cancelled:
            raise
        except BaseException as error:
            self._raised[message.id] = error
            raise
