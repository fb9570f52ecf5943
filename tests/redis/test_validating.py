"""Rich arguments and results go through a real server, and what does not validate is kept there."""

from datetime import date

import pytest

from chicory import Chicory, TaskMessage, ValidationError, ValidationMode
from chicory.errors import RemoteTaskError
from chicory.testing import running_worker
from tests.unit.shapes import Cat, Dog, Item


async def test_rich_values_arrive_and_what_is_wrong_is_told(server):
    app = Chicory(server.url, validation_mode=ValidationMode.STRICT)
    seen = []

    @app.task(name="meet")
    async def meet(items: list[Item], pet: Cat | Dog) -> dict[date, Cat | Dog]:
        seen.append((items, pet))
        return {item.day: pet for item in items}

    items = [Item(1.5, date(2026, 1, 2), frozenset({"new"}))]
    async with app, running_worker(app):
        with pytest.raises(ValidationError, match=r"meet: items\[0\]\.price must be float, not str"):
            await meet.delay([Item("1.5", date(2026, 1, 2))], Cat("Tom"))
        await app.publish(TaskMessage("by-name", name="meet", args=[[], {"name": "Tom"}]))
        result = await meet.delay(items, Dog("Rex"))

        assert await result.get(timeout=30) == {date(2026, 1, 2): Dog("Rex")}
        with pytest.raises(RemoteTaskError, match=r"ValidationError: meet: pet must be Cat \| Dog, not dict"):
            await meet.result("by-name").get(timeout=30)
        (letter,) = await app.broker.get_dlq_messages()

    assert seen == [(items, Dog("Rex"))]
    assert letter.original_message.args == [[], {"name": "Tom"}]
