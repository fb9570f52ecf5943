"""Trio, asyncio and sync callers are promised the same: one suite, three worlds."""

from contextlib import asynccontextmanager

import pytest
import trio
import trustme

from chicory.errors import (
    ArgumentsError,
    BrokerFull,
    BrokerRefused,
    BrokerUnavailable,
    PayloadError,
    PublishUnknown,
    QueueFull,
    RemoteTaskError,
    ResultTimeout,
    ResultUnknown,
    TaskCancelled,
)
from chicory.ids import new_id
from chicory.outcome import Done, Failed
from chicory.types import QueueSizes, TaskMessage, TaskState
from tests.callers.conftest import BROKERS
from tests.contract.harness import OOPS, finish_all, message, receive, settle, worker
from tests.rabbit import running_node
from tests.servers import free_port, running_server

# Of tests that wait for results, wherever they are kept.
results = pytest.mark.kinds(*BROKERS, "sqlite")


@asynccontextmanager
async def getting(caller, result, timeout=10):
    """A caller who waits for *result* meanwhile; its end stands in the list that is given."""
    ends = []

    async def get():
        try:
            ends.append(await caller.get(result, timeout))
        except Exception as error:
            ends.append(error)

    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(get)
            yield ends


@results
async def test_a_call_arrives_and_its_result_comes_by_push(app, caller, broker, ground):
    result = await caller.delay(app.tasks["add"], 2, 40)
    assert await caller.state(result) is TaskState.PENDING

    async with getting(caller, result) as ends:
        await ground.waited()
        (delivery,) = await finish_all_with(broker, Done(42))

    assert (delivery.message.name, delivery.message.args) == ("add", [2, 40])
    assert ends == [42]
    if "keeping" in ground.cannot:
        assert await caller.state(result) is TaskState.UNKNOWN
    else:
        assert await caller.get(result) == 42
        assert await caller.state(result) is TaskState.SUCCESS


async def finish_all_with(broker, outcome, expected=1):
    async with worker(broker) as consumer:
        found = await receive(consumer, expected)
        assert all(await settle(consumer, found, outcome))
        return found


async def test_send_returns_the_id(app, caller, broker):
    sent = await caller.send(app.tasks["add"], 1, 2)

    assert [one.message.id for one in await finish_all(broker, expected=1)] == [sent]


async def test_many_are_published_in_order(app, caller, broker):
    sent = [message(args=[number]) for number in range(600)]

    results = await caller.publish_many(app, sent)

    assert [result.id for result in results] == [one.id for one in sent]
    assert [one.message.id for one in await finish_all(broker, expected=600)] == [one.id for one in sent]
    assert await caller.publish_many(app, []) == []


async def test_a_task_is_called_for_each_item_and_by_name_alone(app, caller, broker):
    results = await caller.map(app.remote("add").options(priority=1), iter(range(600)))

    found = await finish_all(broker, expected=600)
    assert [one.message.id for one in found] == [result.id for result in results]
    assert {(one.message.name, one.message.priority) for one in found} == {("add", 1)}
    assert [one.message.args for one in found] == [[number] for number in range(600)]


@pytest.mark.needs("deduplication")
async def test_who_ends_in_the_middle_is_told_what_is_in_and_what_is_unknown(make, proxy, caller, broker):
    app = make(proxy.url, publish_timeout=0.5)
    await caller.send(app.tasks["add"], 0, 0)
    sent = [message(args=[number]) for number in range(700)]
    # The answer to the second 256 is lost, and no connection can be made to ask again.
    proxy.swallow(lambda words: sent[300].id.encode() in words)
    proxy.refusing = True

    with pytest.raises(PublishUnknown) as unknown:
        await caller.publish_many(app, sent)
    proxy.refusing = False

    assert unknown.value.published == 256
    assert list(unknown.value.ids) == [one.id for one in sent[256:512]]
    await caller.publish_many(app, sent[256:])
    assert len(await finish_all(broker, expected=701)) == 701
    await caller.close(app)


async def test_of_many_callers_at_once_one_call_is_sent(app, caller, broker):
    task = app.tasks["add"].options(unique=True)
    found = set()

    async def call():
        found.add((await caller.delay(task, 2, 40)).id)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(call)

    assert {one.message.id for one in await finish_all(broker, expected=1)} == found


@pytest.mark.needs("deduplication")
async def test_a_lost_answer_still_says_which_call_is_there(make, proxy, caller, broker):
    app = make(proxy.url)
    task = app.tasks["add"].options(unique="one")
    first = await caller.send(task, 2, 40)

    for _ in range(2):
        lost = proxy.swallow("EVALSHA")
        assert await caller.send(task, 1, 1) == first
        assert lost.is_set()

    assert [one.message.id for one in await finish_all(broker, expected=1)] == [first]
    lost = proxy.swallow("EVALSHA")
    second = await caller.send(task, 1, 1)
    assert lost.is_set()
    assert [one.message.id for one in await finish_all(broker, expected=1)] == [second]
    await caller.close(app)


async def test_a_delay_is_kept_by_the_broker(app, caller, broker):
    await caller.send(app.tasks["add"].options(delay=60), 1, 2)

    assert await broker.get_queue_sizes() == QueueSizes(ready=0, delayed=1, delivered=0, dead=0)


async def test_what_is_wrong_with_a_call_is_said_before_it_is_sent(app, caller, broker):
    with pytest.raises(ArgumentsError):
        await caller.send(app.tasks["add"], 1)
    with pytest.raises(PayloadError):
        await caller.publish(app, message(args=[object()]))

    assert (await broker.get_queue_sizes()).ready == 0


async def test_a_full_queue_refuses_and_says_how_many_were_taken(make, ground, caller):
    app = make(ground.url, max_stream_length=5)
    broker = ground.worked(app)
    sent = [message() for _ in range(8)]

    with pytest.raises(QueueFull) as full:
        await caller.publish_many(app, sent)
    with pytest.raises(QueueFull):
        await caller.send(app.tasks["add"], 1, 2)

    assert (full.value.limit, full.value.published) == (5, 5)
    assert [one.message.id for one in await finish_all(broker, expected=5)] == [one.id for one in sent[:5]]
    await caller.publish_many(app, sent[5:])
    await caller.close(app)
    await app.aclose()


@pytest.mark.kinds("redis", "embedded")
async def test_a_server_out_of_memory_is_told_apart(make, caller):
    with running_server() as server:
        app = make(server.url)
        await caller.send(app.tasks["add"], 1, 2)
        with server.client() as client:
            client.config_set("maxmemory", "1mb")

            with pytest.raises(BrokerFull, match="raise maxmemory"):
                await caller.send(app.tasks["add"], 1, 2)

            client.config_set("maxmemory", "0")
        await caller.send(app.tasks["add"], 1, 2)
        await caller.close(app)


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.needs("deduplication")
async def test_a_call_whose_answer_is_lost_is_there_once(make, proxy, caller, broker, joined):
    app = make(proxy.url, joined=joined)
    await caller.send(app.tasks["add"], 0, 0)

    for number in range(3):
        lost = proxy.swallow("EVALSHA")
        await caller.send(app.tasks["add"], number, number)
        assert lost.is_set()

    assert len(await finish_all(broker, expected=4)) == 4
    assert (await broker.counters())["published"] == 4
    await caller.close(app)


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.needs("deduplication")
async def test_a_call_without_answer_is_unknown_and_repeating_it_is_safe(make, proxy, caller, broker, joined):
    app = make(proxy.url, joined=joined, publish_timeout=0.5)
    await caller.send(app.tasks["add"], 0, 0)
    doubtful = TaskMessage(name="add", args=[1, 1])
    proxy.swallow("EVALSHA")
    # The connection that is open still works; no other will.
    proxy.refusing = True

    with pytest.raises(PublishUnknown) as unknown:
        await caller.publish(app, doubtful)
    assert unknown.value.ids == (doubtful.id,)
    proxy.refusing = False
    await caller.publish(app, doubtful)

    assert len(await finish_all(broker, expected=2)) == 2
    assert (await broker.counters())["published"] == 2
    await caller.close(app)


@pytest.mark.kinds("rabbitmq")
async def test_a_call_that_is_not_confirmed_is_unknown(shaky, proxy, caller, broker):
    await caller.send(shaky.tasks["add"], 0, 0)
    sent = [message(args=[number]) for number in range(300)]
    proxy.blackhole(up=False)

    with trio.fail_after(5), pytest.raises(PublishUnknown) as unknown:
        await caller.publish_many(shaky, sent)

    assert unknown.value.published == 0
    assert list(unknown.value.ids) == [one.id for one in sent[:256]]
    proxy.heal()
    # The connection that owes the answer is given up, and the next call has another.
    await caller.send(shaky.tasks["add"], 1, 1)
    assert proxy.accepted > 1
    assert len(await finish_all(broker, expected=258)) == 258


@pytest.mark.kinds("rabbitmq")
async def test_a_call_after_the_server_went_away_and_came_back_finds_it(app, caller, broker, server):
    result = await caller.delay(app.tasks["add"], 2, 3)

    ends = app.broker._ends._own or app.broker._ends._trio
    connection = ends.publisher._line.connection
    server.close_all_connections()
    with trio.fail_after(5):
        while not connection.closed:
            await trio.sleep(0.005)

    await caller.send(app.tasks["add"], 1, 2)
    await finish_all_with(broker, Done(5), expected=2)

    assert await caller.get(result) == 5


@pytest.mark.kinds("rabbitmq")
async def test_what_is_closed_has_no_connection_left(make, ground, caller, server):
    app = make(ground.url)
    result = await caller.delay(app.tasks["add"], 2, 3)
    await caller.close(app)

    server.await_no_connections(ground.vhost)
    # Its result would have come to a queue that went with the connection.
    assert await caller.state(result) is TaskState.UNKNOWN


@pytest.mark.kinds("rabbitmq")
async def test_priority_and_expiry_go_with_a_call(make, ground, caller):
    app = make(ground.url, max_priority=9)
    task = app.tasks["add"]
    for priority in (1, 9, 5):
        await caller.send(task.options(priority=priority, expires=60), priority, 0)

    found = await finish_all(ground.worked(app), expected=3)

    assert [one.message.priority for one in found] == [9, 5, 1]
    assert all(one.message.expires is not None for one in found)
    await caller.close(app)
    await app.aclose()


@pytest.mark.kinds("rabbitmq")
@pytest.mark.long
async def test_a_call_outlasts_a_restart_of_the_node(make, caller):
    with running_node() as node:
        app = make(node.url("/"), publish_timeout=30.0)
        await caller.send(app.tasks["add"], 1, 2)

        # In a thread, so that trio sees meanwhile how its connection ends.
        await trio.to_thread.run_sync(node.restart)
        await caller.send(app.tasks["add"], 3, 4)

        assert len(await finish_all(app.broker, expected=2)) == 2
        await caller.close(app)
        await app.aclose()


async def test_a_call_that_never_left_is_unavailable_and_not_there(shaky, proxy, caller, broker):
    proxy.refusing = True

    with pytest.raises(BrokerUnavailable, match=r"cannot connect|the connection was lost"):
        await caller.send(shaky.tasks["add"], 1, 2)

    assert (await broker.get_queue_sizes()).ready == 0


async def test_a_silent_server_is_unavailable_in_time(shaky, proxy, caller):
    proxy.blackhole()

    with trio.fail_after(5), pytest.raises(BrokerUnavailable, match="no answer in"):
        await caller.send(shaky.tasks["add"], 1, 2)


@pytest.mark.kinds("redis", "embedded")
async def test_a_server_that_restarts_meanwhile_is_found_again(make, caller):
    with running_server(tcp=True, appendonly=True) as server:
        app = make(server.url)
        await caller.send(app.tasks["add"], 1, 2)
        result = await caller.delay(app.tasks["add"], 2, 3)

        server.restart()
        await caller.send(app.tasks["add"], 3, 4)
        assert await caller.state(result) is TaskState.PENDING

        with server.client() as client:
            assert client.xlen(f"{app.broker.config.key_prefix}:stream:default") == 3
        await caller.close(app)


@pytest.mark.kinds("redis", "embedded")
async def test_a_refusal_is_mapped_and_shows_no_password(make, caller):
    with running_server(options=["--requirepass", "right"]) as server:
        app = make(server.url.replace("unix://", "unix://:canary@"))

        with pytest.raises(BrokerRefused, match="check username, password and ACL") as caught:
            await caller.send(app.tasks["add"], 1, 2)

        assert "canary" not in f"{caught.value!r}"
        await caller.close(app)


@pytest.mark.kinds("redis", "embedded")
async def test_tls_is_spoken_and_a_stranger_is_not_believed(make, caller, tmp_path):
    authority, stranger = trustme.CA(), trustme.CA()
    mine = authority.issue_cert("localhost", "127.0.0.1")
    mine.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    stranger.cert_pem.write_to_path(tmp_path / "other.pem")
    port = free_port()
    pem = tmp_path / "server.pem"
    options = ["--tls-port", str(port), "--tls-cert-file", pem, "--tls-key-file", pem, "--tls-auth-clients", "no"]
    with running_server(options=[*map(str, options), "--tls-ca-cert-file", str(tmp_path / "ca.pem")]) as server:
        app = make(f"rediss://localhost:{port}/0?ssl_ca_certs={tmp_path / 'ca.pem'}")
        wary = make(f"rediss://localhost:{port}/0?ssl_ca_certs={tmp_path / 'other.pem'}", publish_timeout=0.2)

        await caller.send(app.tasks["add"], 1, 2)
        with pytest.raises(BrokerUnavailable, match="check the CA and the name"):
            await caller.send(wary.tasks["add"], 1, 2)

        with server.client() as client:
            assert client.xlen(f"{app.broker.config.key_prefix}:stream:default") == 1
        await caller.close(app)
        await caller.close(wary)


@results
async def test_waiting_ends_in_time_and_the_task_goes_on(app, caller, broker, ground):
    result = await caller.delay(app.tasks["add"], 2, 3)

    with trio.fail_after(5):
        for timeout in (0, 0.05):
            with pytest.raises(ResultTimeout):
                await caller.get(result, timeout)
    await finish_all_with(broker, Done(5))

    assert await caller.get(result) == 5
    if "keeping" not in ground.cannot:
        assert await caller.get(result, 0) == 5


@results
async def test_a_failure_is_raised_where_it_is_waited_for(app, caller, broker):
    result = await caller.delay(app.tasks["add"], 2, 3)

    async with getting(caller, result) as ends:
        await finish_all_with(broker, Failed(OOPS))

    (failed,) = ends
    assert isinstance(failed, RemoteTaskError)
    assert failed.failure == OOPS


@results
async def test_many_are_waited_for_together(app, caller, broker):
    results = await caller.publish_many(app, [app.tasks["add"].message(x, 1) for x in range(50)])
    got = []

    async def gather():
        got.extend(await caller.gather(results))

    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gather)
            await finish_all_with(broker, Done(5), expected=50)

    assert got == [5] * 50


@pytest.mark.needs("subscriptions")
async def test_many_are_waited_for_by_one_subscription(app, caller, broker, ground, server):
    results = await caller.publish_many(app, [app.tasks["add"].message(x, 1) for x in range(50)])
    got = []

    async def gather():
        got.extend(await caller.gather(results))

    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gather)
            await ground.waited()
            with server.client() as client:
                assert len(client.client_list(_type="pubsub")) == 1
            await finish_all_with(broker, Done(5), expected=50)

    assert got == [5] * 50
    with pytest.raises(ResultTimeout):
        await caller.gather([await caller.delay(app.tasks["add"], 1, 2)], 0.1)
    await broker.purge_queue()


@results
async def test_results_come_as_their_tasks_complete(app, caller, broker, ground):
    results = await caller.publish_many(app, [app.tasks["add"].message(x, 1) for x in range(6)])
    heard = []

    async def complete():
        await caller.completed(results, heard.append)

    with trio.fail_after(15):
        async with worker(broker) as consumer, trio.open_nursery() as nursery:
            deliveries = await receive(consumer, 6)
            nursery.start_soon(complete)
            for number in (3, 1, 5, 0, 2, 4):
                await settle(consumer, [deliveries[number]], Done(number))
                while number not in heard:
                    await trio.sleep(0.005)

    assert heard == [3, 1, 5, 0, 2, 4]


@results
async def test_who_waits_for_what_is_cancelled_is_told_at_once(app, caller, broker, ground):
    result = await caller.delay(app.tasks["add"], 2, 3)

    async with getting(caller, result) as ends:
        await ground.waited()
        assert await caller.cancel(result)

    assert isinstance(ends[0], TaskCancelled)
    if "keeping" not in ground.cannot:
        assert await caller.state(result) is TaskState.CANCELLED
    await broker.purge_queue()


@results
async def test_nothing_is_waited_for_that_was_never_sent(app, caller):
    with trio.fail_after(5), pytest.raises(ResultUnknown):
        await caller.get(app.result(new_id()), None)


async def test_who_waits_survives_a_line_that_breaks(shaky, proxy, caller, broker, ground):
    result = await caller.delay(shaky.tasks["add"], 2, 3)

    async with getting(caller, result) as ends:
        await ground.waited()
        proxy.reset()
        await finish_all_with(broker, Done(5))

    assert ends == [5]


@pytest.mark.kinds("redis", "embedded")
async def test_a_backend_of_its_own_is_told_what_to_expect(make, server, caller):
    app = make(server.url, joined=False)

    result = await caller.delay(app.tasks["add"], 2, 3)

    assert await caller.state(result) is TaskState.PENDING
    await caller.close(app)


async def test_what_was_closed_opens_again(app, caller, broker):
    for _ in range(2):
        await caller.send(app.tasks["add"], 1, 2)
        await caller.close(app)

    assert (await broker.get_queue_sizes()).ready == 2
