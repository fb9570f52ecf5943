"""What checkers must say of a user's code; each line that is wrong says so at its end, for pyright and for mypy."""

from contextvars import ContextVar
from datetime import timedelta
from typing import Any, assert_type

from chicory import AsyncResult, CallNext, Chicory, Task, TaskContext, TaskMessage, Unique, ValidationMode

tenant: ContextVar[str] = ContextVar("tenant")
depth: ContextVar[int] = ContextVar("depth", default=0)
app = Chicory(carry=[tenant, depth])


@app.task
async def double(x: int) -> int:
    return 2 * x


@app.task(queue="slow", timeout=30)
def shout(word: str, *, times: int = 1) -> str:
    return word.upper() * times


@app.task
async def visit(context: TaskContext, url: str) -> bytes:
    return context.task_id.encode() + url.encode()


@app.task(validation_mode=ValidationMode.STRICT)
async def halve(x: int) -> float:
    return x / 2


@app.task(name="measure")
def measure(context: TaskContext, path: str) -> float:
    return float(context.retries + len(path))


@app.task
def move(x: int, to: str) -> bool:
    return bool(x and to)


@app.cron("0 3 * * *", tz="Europe/Rome", args=["/tmp"])
@app.task
async def sweep(context: TaskContext, path: str) -> int:
    return len(path)


@app.every(seconds=30, misfire="skip")
def beat() -> int:
    return 1


class Mailer:
    @app.task(name="post")
    async def post(self, address: str) -> None:
        """Refused when it is registered, as a method is; a checker knows at the call."""


@app.task(flavor="asyncio")
async def crawl(url: str) -> int:
    return len(url)


@app.on_run
async def watch(message: TaskMessage, call_next: CallNext) -> object:
    return await call_next(message)


@app.task
async def use(context: TaskContext[list[str]], word: str) -> int:
    context.state.append(1)  # error: reportArgumentType, arg-type
    return context.state.index(word)


async def right() -> None:
    assert_type(await (await use.delay("a")).get(), int)
    assert_type(await (await crawl.delay("https://example.com")).get(), int)
    assert_type(await double(1), int)
    assert_type(shout("a", times=2), str)
    assert_type(await double.delay(1), AsyncResult[int])
    assert_type(await (await shout.delay("a", times=2)).get(timeout=1), str)
    assert_type(await visit.send("https://example.com"), str)
    assert_type(await (await visit.delay("https://example.com")).get(), bytes)
    assert_type(await (await measure.delay("/tmp")).get(), float)
    assert_type(await double.options(delay=1, queue="late").delay(1), AsyncResult[int])
    assert_type(await (await halve.delay(1)).get(), float)
    assert_type(await double.options(delay=1)(1), int)
    assert_type(shout.options(priority=1)("a"), str)
    assert_type(halve.result("an-id"), AsyncResult[float])
    assert_type(await (await sweep.delay("/tmp")).get(), int)
    assert_type(beat(), int)
    app.schedule(sweep.options(queue="slow"), every=timedelta(minutes=5), args=["/var"])
    assert_type(await double.map(range(3)), list[AsyncResult[int]])
    assert_type(await shout.map(["a", "b"]), list[AsyncResult[str]])
    assert_type(await visit.options(priority=2).map(["https://example.com"]), list[AsyncResult[bytes]])
    assert_type(await move.starmap([(1, "here")]), list[AsyncResult[bool]])
    assert_type(await move.starmap(enumerate("ab")), list[AsyncResult[bool]])
    assert_type(await app.publish_many(double.message(x) for x in range(3)), list[AsyncResult[Any]])
    assert_type(await app.remote("far").options(queue="slow").delay(1, to="x"), AsyncResult[Any])
    assert_type(await app.remote("far").map([1, "a"]), list[AsyncResult[Any]])
    assert_type(await double.options(unique=lambda x: str(x)).delay(1), AsyncResult[int])
    assert_type(await double.options(unique=Unique("a", window=timedelta(1))).send(1), str)
    task: Task[[int], int] = double
    await task.send(1)


def right_without_await() -> None:
    assert_type(double.delay_sync(1), AsyncResult[int])
    assert_type(shout.delay_sync("a", times=2).get_sync(timeout=1), str)
    assert_type(visit.send_sync("https://example.com"), str)
    assert_type(double.map_sync([1]), list[AsyncResult[int]])
    assert_type(move.starmap_sync([(1, "here")]), list[AsyncResult[bool]])
    assert_type(app.remote("far").send_sync(1), str)


async def wrong() -> None:
    await double.delay("one")  # error: reportArgumentType, arg-type
    await double.delay()  # error: reportCallIssue, call-arg
    await double.delay(1, 2)  # error: reportCallIssue, call-arg
    await double.send(y=1)  # error: reportCallIssue, call-arg
    await shout.delay("a", 2)  # error: reportCallIssue, call-arg
    await visit.delay(3)  # error: reportArgumentType, arg-type
    await measure.send(path=1)  # error: reportArgumentType, arg-type
    await double.options(dleay=1).delay(1)  # error: reportCallIssue, call-arg
    await halve.delay("one")  # error: reportArgumentType, arg-type
    await sweep.delay(3)  # error: reportArgumentType, arg-type
    app.task(flavor="curio")  # error: reportArgumentType, call-overload
    Chicory(carry=tenant)  # error: reportArgumentType, arg-type
    Chicory(carry=["tenant"])  # error: reportArgumentType, list-item
    app.on_send(shout)  # error: reportArgumentType, type-var
    app.every(seconds=30, misfire="al")  # error: reportArgumentType, arg-type
    app.schedule(len, every=30)  # error: reportArgumentType, arg-type
    double.message("one")  # error: reportArgumentType, arg-type
    text: str = await (await double.delay(1)).get()  # error: reportAssignmentType, assignment
    print(text)
    await double("one")  # error: reportArgumentType, arg-type
    shout(1)  # error: reportArgumentType, arg-type
    await visit.delay(TaskContext.of_call("visit"), "https://example.com")  # error: reportCallIssue, arg-type
    double.options(unique=5)  # error: reportArgumentType, arg-type
    await double.map(3)  # error: reportArgumentType, arg-type
    await double.map(["one"])  # error: reportArgumentType, list-item
    await move.map([1])  # error: reportAttributeAccessIssue, arg-type
    await move.starmap([(1, 2)])  # error: reportArgumentType, list-item
    await move.starmap([(1,)])  # error: reportArgumentType, list-item
    app.remote("far")(1)  # error: reportCallIssue, operator
    await Mailer().post.delay("ann@example.com")  # error: reportCallIssue, arg-type


def wrong_without_await() -> None:
    double.delay_sync("one")  # error: reportArgumentType, arg-type
    visit.send_sync()  # error: reportCallIssue, call-arg
    double.map_sync(["one"])  # error: reportArgumentType, list-item
