"""asyncio beside trio in one run, and the rest of the process as if there were none of it."""

import asyncio
import logging
import subprocess
import sys
import textwrap

import pytest
import trio
import trio.testing

from chicory.links.trio_loop import in_a_loop, open_loop


async def native():
    """Which loop runs this."""
    return type(asyncio.get_running_loop())


NATIVE = asyncio.run(native())


def said_by(program):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_it_leaves_asyncio_as_it_was_name_for_name():
    said = said_by("""
        import asyncio, sys

        modules = asyncio, asyncio.events, asyncio.tasks
        before = [dict(vars(module)) for module in modules]
        import chicory.links.trio_loop

        assert "trio_asyncio" in sys.modules
        for names, module in zip(before, modules):
            print([name for name, value in vars(module).items() if names.get(name, module) is not value])
    """)

    assert said.split() == ["[]"] * 3


def test_who_imports_trio_asyncio_first_has_it_as_it_is():
    said_by("""
        import trio, trio_asyncio, asyncio
        changed = asyncio.new_event_loop
        from chicory.links.trio_loop import open_loop

        async def main():
            async with open_loop() as loop:
                assert await loop.run_aio_coroutine(asyncio.sleep(0, "ours")) == "ours"
            async with trio_asyncio.open_loop():
                assert await trio_asyncio.aio_as_trio(asyncio.sleep)(0, "theirs") == "theirs"

        trio.run(main)
        assert asyncio.new_event_loop is changed
    """)


async def test_everybody_else_has_native_loops_while_one_is_open():
    async with open_loop() as loop:
        assert await loop.run_aio_coroutine(native()) is not NATIVE
        assert await trio.to_thread.run_sync(asyncio.run, native()) is NATIVE
        # Blocking, as it always was, and as it always worked.
        assert asyncio.run(native()) is NATIVE
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        assert not in_a_loop()

    assert asyncio.run(native()) is NATIVE


async def test_what_asyncio_code_takes_for_granted_is_there():
    async def echo(stream):
        await stream.send_all(await stream.receive_some())

    async def converse(port):
        assert in_a_loop()
        assert asyncio.current_task() is not None
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0.001))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"hello\n")
            line = await reader.readline()
            writer.close()
            await writer.wait_closed()
        future = asyncio.Future()
        asyncio.get_event_loop().call_later(0.001, future.set_result, line)
        return await asyncio.wait_for(future, 5)

    async with trio.open_nursery() as nursery:
        listener, *_ = await nursery.start(trio.serve_tcp, echo, 0)
        async with open_loop() as loop:
            assert await loop.run_aio_coroutine(converse(listener.socket.getsockname()[1])) == b"hello\n"
        nursery.cancel_scope.cancel()


async def test_the_end_of_a_loop_is_the_end_of_its_tasks_also_of_the_stubborn_and_the_broken():
    ended = []

    async def stubborn():
        for _ in range(3):
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                ended.append("once more")

    async def broken():
        try:
            await asyncio.sleep(3600)
        finally:
            raise ValueError

    async with open_loop() as loop:
        loop.set_exception_handler(lambda *_: None)
        tasks = [loop.create_task(work()) for work in (stubborn, broken)]
        await loop.run_aio_coroutine(asyncio.sleep(0))

    assert [task.done() for task in tasks] == [True, True]
    assert len(ended) == 3


async def test_two_loops_end_in_any_order(caplog):
    caplog.set_level(logging.WARNING)
    first, second = trio.Event(), trio.Event()

    async def live(opened, until):
        async with open_loop() as loop:
            opened.set()
            await until.wait()
            assert await loop.run_aio_coroutine(asyncio.sleep(0, 1)) == 1

    one, other = trio.Event(), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(live, one, first)
        await one.wait()
        nursery.start_soon(live, other, second)
        await other.wait()
        first.set()
        await trio.testing.wait_all_tasks_blocked()
        second.set()

    assert not caplog.records
