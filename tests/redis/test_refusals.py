"""A server that must not be used is refused with the remedy, and a full one loses nothing."""

import pytest
import trio
import trustme

from chicory.brokers.base import Settlement
from chicory.brokers.redis import RedisBroker
from chicory.config import RedisBrokerConfig
from chicory.errors import BrokerFull, BrokerRefused, BrokerUnavailable, QueueFull
from chicory.outcome import Dead, Done, RetryIn
from chicory.types import Failure, TaskMessage
from tests.servers import free_port, running_server


def broker_for(url, **settings):
    return RedisBroker(RedisBrokerConfig(url=url, **settings))


async def test_an_evicting_server_is_refused_with_the_remedy():
    with running_server(options=["--maxmemory-policy", "allkeys-lru"]) as server:
        broker = broker_for(server.url)

        with pytest.raises(BrokerRefused, match="CONFIG SET maxmemory-policy noeviction"):
            await broker.publish(TaskMessage(name="t"))
        with server.client() as client:
            assert client.keys() == []
            client.config_set("maxmemory-policy", "noeviction")
        await broker.publish(TaskMessage(name="t"))

        assert (await broker.get_queue_sizes()).ready == 1
        await broker.aclose()


async def test_a_wrong_password_is_refused_without_showing_it():
    with running_server(options=["--requirepass", "right"]) as server:
        broker = broker_for(server.url.replace("unix://", "unix://:canary@"))

        with pytest.raises(BrokerRefused, match="check username, password and ACL") as caught:
            await broker.publish(TaskMessage(name="t"))

        assert "canary" not in f"{caught.value!r} {caught.value} {broker!r}"
        await broker.aclose()


async def test_a_right_password_and_an_acl_user_get_in():
    user = ["--user", "worker", "on", ">canary", "~*", "&*", "+@all"]
    with running_server(options=["--requirepass", "right", *user]) as server:
        for credentials in (":right", "worker:canary"):
            broker = broker_for(server.url.replace("unix://", f"unix://{credentials}@"))
            await broker.publish(TaskMessage(name="t"))
            await broker.aclose()
        assert (await _ready(server, ":right")) == 2


async def _ready(server, credentials):
    broker = broker_for(server.url.replace("unix://", f"unix://{credentials}@"))
    try:
        return (await broker.get_queue_sizes()).ready
    finally:
        await broker.aclose()


async def test_an_old_server_is_refused(nursery):
    info = b"# Server\r\nredis_version:6.2.14\r\n"
    answers = {b"SETNAME": b"+OK\r\n", b"ID": b":7\r\n", b"INFO": b"$%d\r\n%s\r\n" % (len(info), info)}

    async def old_server(stream):
        async with stream:
            async for data in stream:
                for word in data.split(b"\r\n"):
                    if word in answers:
                        await stream.send_all(answers[word])

    listeners = await nursery.start(trio.serve_tcp, old_server, 0)
    port = listeners[0].socket.getsockname()[1]
    broker = broker_for(f"redis://127.0.0.1:{port}/0")

    with pytest.raises(BrokerRefused, match=r"Redis 6\.2\.14 is too old; Chicory needs 7\.0"):
        await broker.get_dlq_count()

    await broker.aclose()
    nursery.cancel_scope.cancel()


async def test_nobody_there_is_said_with_address_and_hint():
    broker = RedisBroker(RedisBrokerConfig(url="unix:///nowhere/redis.sock", publish_timeout=0.05), hint="start one")

    with pytest.raises(BrokerUnavailable, match=r"unix:///nowhere/redis\.sock: cannot connect .*; start one"):
        await broker.publish(TaskMessage(name="t"))

    await broker.aclose()


async def test_tls_is_spoken_and_the_certificate_is_checked(tmp_path):
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    stranger = trustme.CA()
    stranger.cert_pem.write_to_path(tmp_path / "stranger.pem")
    pem = str(tmp_path / "server.pem")
    port = free_port()
    options = ["--tls-port", str(port), "--tls-cert-file", pem, "--tls-key-file", pem, "--tls-auth-clients", "no"]
    with running_server(options=[*options, "--tls-ca-cert-file", str(tmp_path / "ca.pem")]):
        trusted = broker_for(f"rediss://localhost:{port}/0?ssl_ca_certs={tmp_path / 'ca.pem'}")
        wary = broker_for(f"rediss://localhost:{port}/0?ssl_ca_certs={tmp_path / 'stranger.pem'}", publish_timeout=0.1)

        await trusted.publish(TaskMessage(name="t"))
        async with trusted.consumer(["default"], name="w", limit=1) as consumer:
            (delivery,) = await consumer.receive(1)
            with trio.move_on_after(0.05) as idle:
                await consumer.receive(1)
            assert idle.cancelled_caught
            assert list(await consumer.settle([Settlement(delivery, Done(None))])) == [True]
        with pytest.raises(BrokerUnavailable, match="no TLS here"):
            await wary.publish(TaskMessage(name="t"))

        await trusted.aclose()
        await wary.aclose()


async def test_a_full_server_takes_no_message_and_still_lets_work_finish():
    with running_server() as server, server.client() as client:
        broker = broker_for(server.url)
        await broker.publish_many([TaskMessage(name="t", args=[n]) for n in range(3)])
        async with broker.consumer(["default"], name="w", limit=3) as consumer:
            done, retried, dead = await consumer.receive(3)
            client.config_set("maxmemory", "1mb")

            with pytest.raises(BrokerFull, match="raise maxmemory"):
                await broker.publish(TaskMessage(name="t"))
            answers = await consumer.settle(
                [
                    Settlement(done, Done(None)),
                    Settlement(retried, RetryIn(60, retried.message, None)),
                    Settlement(dead, Dead(Failure("E", "x"))),
                ]
            )
            assert list(answers) == [True] * 3
            assert await consumer.renew()

        client.config_set("maxmemory", "0")
        await broker.publish(TaskMessage(name="t"))
        sizes = await broker.get_queue_sizes()
        assert (sizes.ready, sizes.delayed, sizes.dead, sizes.delivered) == (1, 1, 1, 0)
        await broker.aclose()


async def test_a_full_queue_says_how_many_it_took():
    with running_server() as server:
        broker = broker_for(server.url, max_stream_length=300)

        with pytest.raises(QueueFull) as caught:
            await broker.publish_many([TaskMessage(name="t") for _ in range(700)])

        assert caught.value.published == 300
        assert (await broker.get_queue_sizes()).ready == 300
        await broker.publish(TaskMessage(name="t"), delay=60)
        await broker.aclose()
