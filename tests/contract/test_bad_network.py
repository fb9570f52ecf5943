"""The proxy that fault tests stand on does what it says: a fault that does not happen proves nothing."""

import struct
from contextlib import AsyncExitStack, suppress

import hiredis
import pytest
import trio

from tests.proxy import Proxy, open_proxy
from tests.servers import Server, running_server


@pytest.fixture(scope="module")
def server():
    with running_server("redis", tcp=True) as running:
        yield running


@pytest.fixture
async def proxy(server: Server):
    async with open_proxy(server.address) as opened:
        yield opened


class Client:
    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.reader = hiredis.Reader()

    async def send(self, *commands: tuple[object, ...]) -> None:
        await self.stream.send_all(b"".join(hiredis.pack_command(command) for command in commands))

    async def reply(self) -> object:
        while (found := self.reader.gets()) is False:
            chunk = await self.stream.receive_some()
            if not chunk:
                raise trio.BrokenResourceError("closed")
            self.reader.feed(chunk)
        return found

    async def call(self, *command: object) -> object:
        await self.send(command)
        return await self.reply()


@pytest.fixture
async def connect(proxy: Proxy):
    """Open one more connection through the proxy."""
    async with AsyncExitStack() as stack:

        async def one() -> Client:
            return Client(await stack.enter_async_context(await trio.open_tcp_stream(*proxy.address)))

        yield one


async def test_an_undisturbed_proxy_passes_everything(proxy, connect):
    client = await connect()

    assert await client.call("SET", "k", b"x" * 300_000) == b"OK"
    assert await client.call("GET", "k") == b"x" * 300_000


async def test_a_swallowed_command_takes_effect_and_only_its_reply_is_lost(proxy, connect):
    client = await connect()
    await client.call("DEL", "before", "counter", "after")

    lost = proxy.swallow("INCR")
    await client.send(("SET", "before", "1"), ("INCR", "counter"), ("SET", "after", "1"))

    assert await client.reply() == b"OK"
    with pytest.raises(trio.BrokenResourceError):
        await client.reply()
    await lost.wait()
    again = await connect()
    assert await again.call("MGET", "before", "counter", "after") == [b"1", b"1", None]
    assert await again.call("INCR", "counter") == 2


async def test_a_swallowed_command_may_be_chosen_by_its_words(proxy, connect):
    client = await connect()

    lost = proxy.swallow(lambda words: words[1] == b"second")

    assert await client.call("SET", "first", "1") == b"OK"
    with pytest.raises(trio.BrokenResourceError):
        await client.call("SET", "second", "1")
    assert lost.is_set()


async def test_reset_breaks_open_connections(proxy, connect):
    client = await connect()
    await client.call("PING")

    assert proxy.reset() == 1

    with pytest.raises(trio.BrokenResourceError):
        await client.call("PING")
    assert await (await connect()).call("PING") == b"PONG"


async def test_a_blackhole_is_silent_and_heals(proxy, connect):
    client = await connect()
    await client.call("DEL", "k")

    proxy.blackhole(up=False)
    with trio.move_on_after(0.1) as waiting:
        await client.call("INCR", "k")
    proxy.heal()

    assert waiting.cancelled_caught
    assert await client.reply() == 1


async def test_cut_after_breaks_within_a_reply(proxy, connect):
    client = await connect()
    await client.call("SET", "k", b"x" * 1000)

    proxy.cut_after(500)

    with pytest.raises(trio.BrokenResourceError):
        await client.call("GET", "k")


async def test_one_byte_at_a_time_is_only_slow(proxy, connect):
    client = await connect()
    proxy.one_byte = True

    assert await client.call("ECHO", b"x" * 200) == b"x" * 200


async def test_latency_delays_each_way(proxy, connect):
    client = await connect()
    proxy.latency = 0.05

    began = trio.current_time()
    await client.call("PING")

    assert trio.current_time() - began >= 0.1


async def test_a_refusing_proxy_lets_nobody_in(proxy, connect):
    proxy.refusing = True

    with pytest.raises((trio.BrokenResourceError, OSError)):
        await (await connect()).call("PING")


@pytest.mark.parametrize("frames", [0, 1, 2, 3])
async def test_a_client_that_crashes_has_sent_so_many_frames_and_then_its_end(frames):
    said = [b"AMQP\0\0\x09\x01", *(struct.pack(">BHI", 1, 0, size) + b"x" * size + b"\xce" for size in (3, 0, 500))]
    heard, ended = bytearray(), trio.Event()

    async def listen(stream):
        async for chunk in stream:
            heard.extend(chunk)
        ended.set()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, listen, [listener])
        async with open_proxy(listener.socket.getsockname(), resp=False) as proxy:
            crashed = proxy.crash_after(frames)
            async with await trio.open_tcp_stream(*proxy.address) as client:
                with suppress(trio.BrokenResourceError):
                    for byte in b"".join(said):
                        await client.send_all(bytes([byte]))
                with trio.fail_after(5):
                    await crashed.wait()
                    await ended.wait()
                    await proxy.emptied()
            async with await trio.open_tcp_stream(*proxy.address) as another:
                with pytest.raises(trio.BrokenResourceError):
                    await another.receive_some()
        nursery.cancel_scope.cancel()

    whole = b"".join(said[:frames])
    assert heard.startswith(whole)
    # The one after may have begun.
    assert len(heard) < len(whole) + len(said[frames])


async def test_a_proxy_may_stand_on_a_unix_socket():
    with running_server("redis") as private:
        socket = private.directory / "p"
        async with open_proxy(private.address, unix=socket) as proxy:
            async with await trio.open_unix_socket(str(socket)) as stream:
                assert await Client(stream).call("PING") == b"PONG"
            assert proxy.accepted == 1


async def test_a_server_that_is_restarted_keeps_its_address_and_its_journal():
    with running_server("redis", tcp=True, appendonly=True, options=["--appendfsync", "always"]) as private:
        port, pid = private.port, private.pid
        with private.client() as client:
            client.set("kept", "1")

        private.restart()

        assert private.port == port
        assert private.pid != pid
        with private.client() as client:
            assert client.get("kept") == b"1"
