"""Middleware of the sending side, for callers of three kinds."""

import pytest
from msgspec.structs import replace

from chicory.errors import NoBackend, QueueFull, UsageError
from tests.contract.harness import finish_all, message


@pytest.fixture
def said(app):
    """What two of them saw, in order; the inner one adds a header."""
    said = []

    @app.on_send
    async def outer(message, call_next):
        said.append(f"outer {message.name}")
        try:
            await call_next(message)
        except Exception as error:
            said.append(f"outer {type(error).__name__}")
            raise
        said.append("outer sent")

    @app.on_send
    async def inner(message, call_next):
        said.append("inner")
        await call_next(replace(message, headers={**message.headers, "tenant": "7"}))
        said.append("inner sent")

    return said


async def test_it_surrounds_the_sending_and_may_change_what_is_sent(app, caller, broker, said):
    await caller.send(app.tasks["add"], 2, 40)

    (delivery,) = await finish_all(broker, expected=1)
    assert delivery.message.headers == {"tenant": "7"}
    assert said == ["outer add", "inner", "inner sent", "outer sent"]


async def test_of_many_each_passes_it_and_all_go_out_together(app, caller, broker, said):
    messages = [message(f"number-{number}") for number in range(3)]

    results = await caller.publish_many(app, messages)

    assert [result.id for result in results] == [one.id for one in messages]
    assert {each.message.headers["tenant"] for each in await finish_all(broker, expected=3)} == {"7"}
    going = [word for number in range(3) for word in (f"outer number-{number}", "inner")]
    assert said == [*going, *["inner sent", "outer sent"] * 3]


async def test_what_it_refuses_is_raised_and_of_many_nothing_is_sent(app, caller, broker, said):
    @app.on_send
    async def refuse(message, call_next):
        if message.name == "bad":
            raise PermissionError("not that one")
        await call_next(message)

    with pytest.raises(PermissionError, match="not that one"):
        await caller.publish(app, message("bad"))
    with pytest.raises(PermissionError, match="not that one"):
        await caller.publish_many(app, [message("good"), message("bad"), message("good")])

    assert (await broker.get_queue_sizes()).ready == 0
    assert said.count("outer PermissionError") == 3
    assert "outer sent" not in said


async def test_it_sees_that_the_broker_refused(app, caller, broker, said, monkeypatch):
    async def full(*_, **__):
        raise QueueFull("default", 0)

    monkeypatch.setattr(app.broker, "publish", full)
    monkeypatch.setattr(app.broker, "publish_many", full)

    with pytest.raises(QueueFull):
        await caller.publish(app, message())
    with pytest.raises(QueueFull):
        await caller.publish_many(app, [message(), message()])

    assert said.count("outer QueueFull") == 3


async def test_a_changed_id_and_a_result_that_is_not_wanted_are_heard_of(app, caller, broker):
    @app.on_send
    async def rename(message, call_next):
        await call_next(replace(message, id=f"my-{message.args[0]}", ignore_result=True))

    result = await caller.delay(app.tasks["add"], 2, 40)

    assert result.id == "my-2"
    with pytest.raises(NoBackend, match="ignore_result=True"):
        await caller.get(result)
    assert await caller.send(app.tasks["add"], 3, 4) == "my-3"
    await finish_all(broker, expected=2)


@pytest.mark.parametrize("times", [0, 2])
async def test_a_message_is_sent_once_or_refused(app, caller, broker, times):
    @app.on_send
    async def wrong(message, call_next):
        for _ in range(times):
            await call_next(message)

    with pytest.raises(UsageError, match=r"did not await call_next; it refuses|awaited call_next twice"):
        await caller.publish(app, message())
    await finish_all(broker, expected=times // 2)


async def test_what_is_passed_on_must_be_a_message(app, caller):
    @app.on_send
    async def wrong(message, call_next):
        await call_next(message.args)

    with pytest.raises(UsageError, match=r"call_next takes a TaskMessage, not \[\]; make another"):
        await caller.publish(app, message())


async def test_it_is_an_async_function(app):
    with pytest.raises(UsageError, match="on_send takes an async function of message and call_next, not <function"):

        @app.on_send
        def plain(message, call_next): ...

    with pytest.raises(UsageError, match="on_run takes an async function"):
        app.on_run(3)
