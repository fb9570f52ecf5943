"""A distributed task queue on trio.

    from chicory import Chicory

    app = Chicory()

    @app.task
    async def double(x: int) -> int:
        return 2 * x

Names are imported when they are first used, so that `import chicory` costs next to nothing.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chicory.app import Chicory
    from chicory.config import ChicoryConfig, WorkerConfig
    from chicory.context import TaskContext
    from chicory.errors import (
        ChicoryError,
        RemoteTaskError,
        ResultTimeout,
        TaskCancelled,
        TaskDeadLettered,
        TaskExpired,
        ValidationError,
    )
    from chicory.gathering import as_completed, as_completed_sync, gather, gather_sync
    from chicory.middleware import CallNext, Middleware
    from chicory.remote import RemoteTask
    from chicory.result import AsyncResult
    from chicory.retry import Backoff, RetryPolicy
    from chicory.secret import SecretStr
    from chicory.task import Task
    from chicory.types import (
        BackendType,
        BrokerType,
        DeliveryMode,
        DLQMessage,
        Failure,
        Progress,
        TaskInfo,
        TaskMessage,
        TaskState,
        ValidationMode,
    )
    from chicory.unique import Unique
    from chicory.worker.worker import Worker

__version__ = "0.1.0"

__all__ = [
    "AsyncResult",
    "BackendType",
    "Backoff",
    "BrokerType",
    "CallNext",
    "Chicory",
    "ChicoryConfig",
    "ChicoryError",
    "DLQMessage",
    "DeliveryMode",
    "Failure",
    "Middleware",
    "Progress",
    "RemoteTask",
    "RemoteTaskError",
    "ResultTimeout",
    "RetryPolicy",
    "SecretStr",
    "Task",
    "TaskCancelled",
    "TaskContext",
    "TaskDeadLettered",
    "TaskExpired",
    "TaskInfo",
    "TaskMessage",
    "TaskState",
    "Unique",
    "ValidationError",
    "ValidationMode",
    "Worker",
    "WorkerConfig",
    "__version__",
    "as_completed",
    "as_completed_sync",
    "gather",
    "gather_sync",
]

_HOMES = {
    "AsyncResult": "chicory.result",
    "BackendType": "chicory.types",
    "Backoff": "chicory.retry",
    "BrokerType": "chicory.types",
    "CallNext": "chicory.middleware",
    "Chicory": "chicory.app",
    "ChicoryConfig": "chicory.config",
    "ChicoryError": "chicory.errors",
    "DLQMessage": "chicory.types",
    "DeliveryMode": "chicory.types",
    "Failure": "chicory.types",
    "Middleware": "chicory.middleware",
    "Progress": "chicory.types",
    "RemoteTask": "chicory.remote",
    "RemoteTaskError": "chicory.errors",
    "ResultTimeout": "chicory.errors",
    "RetryPolicy": "chicory.retry",
    "SecretStr": "chicory.secret",
    "Task": "chicory.task",
    "TaskCancelled": "chicory.errors",
    "TaskContext": "chicory.context",
    "TaskDeadLettered": "chicory.errors",
    "TaskExpired": "chicory.errors",
    "TaskInfo": "chicory.types",
    "TaskMessage": "chicory.types",
    "TaskState": "chicory.types",
    "Unique": "chicory.unique",
    "ValidationError": "chicory.errors",
    "ValidationMode": "chicory.types",
    "Worker": "chicory.worker.worker",
    "WorkerConfig": "chicory.config",
    "as_completed": "chicory.gathering",
    "as_completed_sync": "chicory.gathering",
    "gather": "chicory.gathering",
    "gather_sync": "chicory.gathering",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'chicory' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
