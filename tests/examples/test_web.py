"""The web examples, asked over their own test clients, with a real worker behind them."""

import asyncio
from contextlib import contextmanager

import httpx
import pytest
import trio

from chicory import ChicoryConfig, Worker
from chicory.backends.rabbitmq import RpcBackend
from chicory.brokers.rabbitmq import RabbitMQBroker
from chicory.config import RabbitMQBrokerConfig
from chicory.ids import new_id
from examples.web.tasks import app
from tests.servers import running_server


@contextmanager
def redis(request):
    """The one that the settings name; the app is the examples' own."""
    with running_server() as server, pytest.MonkeyPatch.context() as environment:
        environment.setenv("CHICORY_BROKER_REDIS_URL", server.url)
        yield
        app.close()


@contextmanager
def rabbitmq(request):
    """RabbitMQ alone, in place of what the settings name."""
    node = request.getfixturevalue("rabbit_node")
    config = RabbitMQBrokerConfig(url=node.url(node.vhost()))
    with app.connected(RabbitMQBroker(config), RpcBackend(config, result_ttl=60), ChicoryConfig()):
        yield
        app.close()


@pytest.fixture(scope="module", autouse=True, params=[redis, rabbitmq])
def server(request):
    with request.param(request):
        yield


class OnALoop:
    """An httpx client for ASGI, whose requests are awaited on one loop."""

    def __init__(self, runner, client):
        self._runner = runner
        self._client = client

    def get(self, *args, **kwargs):
        return self._runner.run(self._client.get(*args, **kwargs))

    def post(self, *args, **kwargs):
        return self._runner.run(self._client.post(*args, **kwargs))


@contextmanager
def fastapi():
    from examples.web.with_fastapi import web

    lifespan = web.router.lifespan_context(web)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(web), base_url="http://testserver")
    with asyncio.Runner() as runner:
        runner.run(lifespan.__aenter__())
        yield OnALoop(runner, client)
        runner.run(lifespan.__aexit__(None, None, None))
        runner.run(client.aclose())


@contextmanager
def wsgi(application):
    with httpx.Client(transport=httpx.WSGITransport(application), base_url="http://testserver") as client:
        yield client


def flask():
    from examples.web.with_flask import web

    return wsgi(web)


def django():
    from examples.web.with_django import application

    return wsgi(application)


def work():
    """Run what waits."""

    async def main():
        async with app:
            await Worker(app, burst=True).run()

    trio.run(main)


@pytest.mark.parametrize("framework", [fastapi, flask, django])
def test_a_request_sends_a_task_and_another_asks_for_its_result(framework):
    with framework() as client:
        asked = client.post("/totals", json=[2, 40])
        place = f"/totals/{asked.json()['id']}"
        early = client.get(place, params={"wait": 0.01})
        work()
        told = client.get(place, params={"wait": 10})
        stranger = client.get(f"/totals/{new_id()}")

    assert (asked.status_code, early.status_code) == (202, 202)
    assert (told.status_code, told.json()) == (200, {"total": 42})
    assert stranger.status_code == 404
