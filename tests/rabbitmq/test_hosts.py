"""Several addresses of one RabbitMQ: asked in order, and left when they do not answer."""

import socket
from contextlib import AsyncExitStack

import pytest
import trio

from chicory.errors import BrokerRefused, BrokerUnavailable, LeaseLost
from chicory.outcome import Done
from tests.contract.harness import message, receive, settle, worker
from tests.proxy import open_proxy
from tests.servers import free_port


@pytest.fixture
async def ways(rabbit_node):
    """Two ways to one node."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(open_proxy(rabbit_node.address, resp=False)) for _ in range(2)]


def places(ways):
    return [f"127.0.0.1:{way.address[1]}" for way in ways]


@pytest.fixture(params=["hosts", "url"])
def through(request, brokers, ways, vhost):
    if request.param == "hosts":
        return brokers(url=None, hosts=places(ways), vhost=vhost)
    return brokers(url=f"amqp://guest:guest@{','.join(places(ways))}/{vhost}")


def accepted(ways):
    return [way.accepted for way in ways]


async def test_the_first_is_asked_first_and_the_next_where_it_does_not_answer(through, ways):
    await through.ping()
    assert accepted(ways) == [1, 0]

    ways[0].refusing = True
    ways[0].reset()
    async with worker(through) as consumer:
        await through.publish(message())
        assert await settle(consumer, await receive(consumer, 1), Done(None)) == [True]
        assert ways[1].accepted == 2

        ways[0].refusing, ways[1].refusing = False, True
        ways[1].reset()
        with pytest.raises(LeaseLost):
            await consumer.receive(1)

    before = accepted(ways)
    async with worker(through) as consumer:
        await through.publish(message())
        assert await settle(consumer, await receive(consumer, 1), Done(None)) == [True]
    assert ways[0].accepted == before[0] + 2


async def test_nobody_goes_back_to_a_node_only_because_it_lives_again(through, ways):
    ways[0].refusing = True
    await through.ping()
    ways[0].refusing = False
    before = ways[0].accepted

    await through.publish(message())

    assert ways[0].accepted == before


async def test_one_that_says_nothing_costs_its_share_of_the_time(brokers, rabbit_node, vhost):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hosts = [f"127.0.0.1:{silent.getsockname()[1]}", f"127.0.0.1:{rabbit_node.port}"]
        broker = brokers(url=None, hosts=hosts, vhost=vhost, connect_timeout=1.0)

        began = trio.current_time()
        await broker.ping()

        assert 0.5 <= trio.current_time() - began < 1.5
        await broker.publish(message())


async def test_where_nobody_answers_or_one_refuses_that_is_said(brokers, rabbit_node, vhost):
    nobody = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    with pytest.raises(BrokerUnavailable, match=f"{nobody[1]}/{vhost}: cannot connect"):
        await brokers(url=None, hosts=nobody, vhost=vhost).ping()

    hosts = [f"127.0.0.1:{rabbit_node.port}", *nobody]
    with pytest.raises(BrokerRefused, match="check username"):
        await brokers(url=None, hosts=hosts, vhost=vhost, password="wrong").ping()
