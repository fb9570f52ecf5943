"""Streams on which a thread interjects: whole pieces between whole pieces, over TCP and over TLS, whatever is full."""

import ssl
import sys
import threading

import pytest
import trio
import trustme

from chicory.links.stream import open_stream

BEAT = b"!beat!!\n"
SIZE = 1000
COUNT = 6000


def piece(number):
    return f"{number:08d}".encode() * (SIZE // 8)


def read(data):
    """The numbers of the pieces in *data*, and how many beats are between them."""
    numbers, beats, at = [], 0, 0
    while at < len(data):
        if data.startswith(BEAT, at):
            beats, at = beats + 1, at + len(BEAT)
        else:
            number = int(data[at : at + 8])
            assert data[at : at + SIZE] == piece(number)
            numbers.append(number)
            at += SIZE
    return numbers, beats


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(params=["tcp", "tls"])
def contexts(request, authority):
    """Of the server and of the client."""
    if request.param == "tcp":
        return None, None
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    return server, client


@pytest.fixture
def quick_turns():
    """Threads take turns at the interpreter a hundred times as often: so they meet more, and wait less."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(before / 100)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("quick_turns")
async def test_what_a_thread_interjects_is_between_what_the_loop_sends(contexts):
    for_server, for_client = contexts
    heard, stop = bytearray(), threading.Event()

    async def serve(stream):
        if for_server is not None:
            stream = trio.SSLStream(stream, for_server, server_side=True)
        while chunk := await stream.receive_some(50_000):
            heard.extend(chunk)
            await stream.send_all(b"ok")

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        client = await open_stream("127.0.0.1", listener.socket.getsockname()[1], tls=for_client)
        done = [0]

        def interject():
            while not stop.is_set():
                done[0] += client.interject(BEAT)

        async def listen():
            while await client.receive_some(4096):
                pass

        nursery.start_soon(listen)
        thread = threading.Thread(target=interject)
        thread.start()
        try:
            for start in range(0, COUNT, 20):
                await client.send_all(b"".join(map(piece, range(start, start + 20))))
        finally:
            stop.set()
            await trio.to_thread.run_sync(thread.join)
        await client.send_all(piece(COUNT))
        with trio.fail_after(20):
            while len(heard) < SIZE * (COUNT + 1) + len(BEAT) * done[0]:
                await trio.sleep(0.005)
        nursery.cancel_scope.cancel()
        client.close()

    numbers, beats = read(bytes(heard))
    assert numbers == list(range(COUNT + 1))
    assert beats == done[0] > 0


async def test_nothing_is_interjected_once_it_is_closed(contexts):
    for_server, for_client = contexts

    async def serve(stream):
        if for_server is not None:
            stream = trio.SSLStream(stream, for_server, server_side=True)
            await stream.do_handshake()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        client = await open_stream("127.0.0.1", listener.socket.getsockname()[1], tls=for_client)
        assert client.interject(BEAT)

        client.close()

        assert not client.interject(BEAT)
        nursery.cancel_scope.cancel()
