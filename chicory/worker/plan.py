"""What a worker knows of a task before a message of it comes, and whether a delivery can be run.  Pure."""

from collections.abc import Callable, Sequence
from contextvars import Context
from datetime import UTC, datetime, timedelta
from typing import Any, final

import attrs

from chicory.app import Chicory
from chicory.brokers.base import Delivery
from chicory.carried import Carried, run_context
from chicory.clock import wall_now
from chicory.config import WorkerConfig
from chicory.context import Report, TaskContext
from chicory.delay import bounded
from chicory.errors import TaskNotFoundError
from chicory.middleware import Middleware
from chicory.outcome import Ending, Expired, Lost, Policy, Unrunnable
from chicory.task import Task
from chicory.types import DeliveryMode, Failure, TaskMessage, Undecodable, timestamp
from chicory.validation.contract import Arguments
from chicory.worker.flavors import Elsewhere, Flavors


@final
@attrs.frozen(eq=False)
class Plan:
    """How the messages of one task are run and judged."""

    task: Task[..., Any]
    function: Callable[..., Any]
    # None is on trio.
    elsewhere: Elsewhere | None
    takes_context: bool
    middleware: tuple[Middleware, ...]
    # What the lifespan gave.
    state: Any
    # Whether there is nothing to be done but to await the function here.
    plain: bool
    # Whether there is something to be done before that, which is `prepare`.
    prepares: bool
    timeout: float | None
    mode: DeliveryMode
    policies: dict[DeliveryMode, Policy]
    # Unix seconds as the task sees them.
    now: Callable[[], float]
    carried: Carried | None
    # None where the task's type hints say nothing of them, or nobody asked.
    incoming: Callable[[Sequence[Any], dict[str, Any]], Arguments] | None = None
    returning: Callable[[Any], Any] | None = None

    def mode_of(self, message: TaskMessage) -> DeliveryMode:
        """At most or at least once: the message says, else the task, else the app."""
        return message.delivery_mode or self.mode

    def prepare(self, message: TaskMessage) -> Arguments:
        """Set what *message* carries in the present context; returns the arguments as the function is given them.

        Raises PayloadError or ValidationError when it cannot be run so.
        """
        if self.carried is not None:
            self.carried.set(message.headers)
        if self.incoming is None:
            return message.args, message.kwargs
        return self.incoming(message.args, message.kwargs)

    def timeout_of(self, message: TaskMessage) -> float | None:
        """Seconds that a run of *message* may take: the message says, else the task."""
        return self.timeout if message.timeout is None else message.timeout

    def context(self, message: TaskMessage, deliveries: int, progress: Report) -> TaskContext[Any]:
        """What a run of *message* that begins now is told of itself; *progress* hears what it says."""
        timeout = self.timeout_of(message)
        deadline = None
        if timeout is not None:
            deadline = datetime.fromtimestamp(self.now(), UTC) + timedelta(seconds=bounded(timeout))
        return TaskContext(
            message, deliveries, self.policy_of(message).retry.max_retries, deadline, progress, self.state
        )

    def policy_of(self, message: TaskMessage) -> Policy:
        """The rules that *message* is judged by."""
        policy = self.policies[message.delivery_mode or self.mode]
        return policy if message.retry_policy is None else attrs.evolve(policy, retry=message.retry_policy)


class Catalog:
    """The plans of an app's tasks, made when first needed.  now: unix seconds, for deadlines that tasks are told."""

    def __init__(
        self, app: Chicory, config: WorkerConfig, flavors: Flavors, *, now: Callable[[], float] = wall_now
    ) -> None:
        self._app = app
        self._flavors = flavors
        self._config = config
        self._now = now
        self._plans: dict[str, Plan] = {}
        # For what is no task at all.
        self.policy = Policy(max_deliveries=config.max_deliveries, dead_letters=config.use_dead_letter_queue)

    def context(self) -> Context:
        """What runs begin with a copy of."""
        return run_context(self._app.carried)

    def judge(self, delivery: Delivery, now: float) -> Plan | Ending:
        """How to run *delivery* at *now*, by the broker's clock; an Ending when it is not to be run."""
        message = delivery.message
        if isinstance(message, Undecodable):
            return Unrunnable(Failure("Undecodable", message.why))
        if delivery.count > self._config.max_deliveries:
            return Lost(delivery.cause or "its workers died")
        plan = self._plans.get(message.name)
        if plan is None:
            try:
                plan = self._plans[message.name] = self._plan(self._app.find(message.name))
            except TaskNotFoundError as error:
                return Unrunnable(Failure("UnknownTask", str(error)))
        if message.expires is not None and timestamp(message.expires) <= now:
            late = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
            return Expired(f"it expired at {message.expires.isoformat(timespec='seconds')}, and it was {late}")
        shape = plan.task.shape
        if not shape.fits(message.args, message.kwargs):
            return Unrunnable(Failure("ArgumentsError", shape.complaint(message.name, message.args, message.kwargs)))
        return plan

    def plan_of(self, message: TaskMessage) -> Plan:
        """How *message*, which was judged fit to be run, is run."""
        return self._plans[message.name]

    def _plan(self, task: Task[..., Any]) -> Plan:
        app, settings, contract = self._app, task.settings, task.contract
        elsewhere = self._flavors.elsewhere(task)
        rules = attrs.evolve(self.policy, retry=task.retry_policy)
        incoming = contract.incoming if contract.holds_inputs else None
        return Plan(
            task=task,
            function=task.function,
            elsewhere=elsewhere,
            takes_context=task.takes_context,
            middleware=app.run_middleware,
            state=self._flavors.state(task),
            plain=elsewhere is None and not task.takes_context and not app.run_middleware,
            prepares=incoming is not None or app.carried is not None,
            carried=app.carried,
            timeout=settings.timeout,
            mode=settings.delivery_mode or app.delivery_mode,
            policies={mode: attrs.evolve(rules, delivery_mode=mode) for mode in DeliveryMode},
            now=self._now,
            incoming=incoming,
            # A child process does that itself: an object of the user's cannot come from there.
            returning=contract.returning if contract.holds_outputs and not settings.process else None,
        )
