"""What is carried, for callers of three kinds: each message has what was set in its caller's context."""

from contextvars import ContextVar

import pytest

from chicory.app import Chicory
from tests.contract.harness import finish_all

tenant: ContextVar[str] = ContextVar("tenant")


@pytest.fixture
async def carrying(app):
    """An app on the same broker that carries the tenant; closing *app* closes it."""
    made = Chicory(app.broker, app.backend, carry=[tenant])

    @made.task(name="add")
    async def add(x: int, y: int = 0) -> int:
        return x + y

    return made


async def test_every_way_of_sending_carries(carrying, caller, broker):
    add = carrying.tasks["add"]
    before = tenant.set("ann")

    await caller.send(add, 1)
    await caller.delay(add.options(headers={"a": "b"}), 2)
    await caller.map(add, [3])
    await caller.publish_many(carrying, (add.message(number) for number in (4, 5)))
    await caller.send(carrying.remote("add"), 6)
    tenant.reset(before)
    await caller.send(add, 7)

    sent = {each.message.args[0]: each.message.headers for each in await finish_all(broker, expected=7)}
    carried = {"chicory-carried-tenant": '"ann"'}
    assert sent == {**dict.fromkeys([1, 3, 4, 5, 6], carried), 2: {"a": "b", **carried}, 7: {}}
