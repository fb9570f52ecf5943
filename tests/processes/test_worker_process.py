"""Workers, schedulers and checks as real processes on a real server, with real signals."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import trio

from chicory import Chicory, TaskMessage, TaskState
from chicory.config import BrokerConfig, ChicoryConfig, RedisBrokerConfig
from tests.servers import free_port, running_server

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0

TASKS = """
    import ctypes, os, time
    import trio
    from chicory import Chicory, RetryPolicy, TaskContext

    app = Chicory(retry_policy=RetryPolicy(max_retries=0))

    @app.task(name="double")
    async def double(x):
        return 2 * x

    @app.task(name="sleep")
    async def sleep(seconds):
        open("started", "a").close()
        await trio.sleep(seconds)

    @app.task(name="block")
    async def block():
        open("started", "a").close()
        time.sleep(1000)

    @app.task(name="hold")
    async def hold(seconds):
        with open("started", "a") as file:
            file.write("once\\n")
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))  # and with it the interpreter
        await trio.sleep(0.3)
        return "held"

    @app.task(name="eat")
    async def eat(mebibytes):
        return len(bytearray(mebibytes * 2**20))

    @app.task(name="poison")
    async def poison(slowly):
        await trio.sleep(slowly)
        os._exit(3)

    @app.task(name="dig")
    def dig():
        open("started", "a").close()
        time.sleep(1000)
"""


@pytest.fixture(scope="module")
def server():
    with running_server("redis") as running:
        yield running


class Place:
    """A directory with an app in it, its settings, and the processes that were started there."""

    def __init__(self, home, url):
        self.home = home
        self.prefix = f"t{os.getpid()}{home.name[-20:]}".replace("_", "")
        self.url = url
        self.processes = []
        (home / "tasks.py").write_text(textwrap.dedent(TASKS))
        self.configure()

    def configure(self, **worker):
        lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in worker.items())
        (self.home / "chicory.toml").write_text(
            f'app = "tasks:app"\n[broker]\ntype = "redis"\n[broker.redis]\nurl = "{self.url}"\n'
            f'key_prefix = "{self.prefix}"\nblock_ms = 500\nclaim_min_idle_ms = 3000\n[worker]\n{lines}\n'
        )

    @property
    def environ(self):
        clean = {key: value for key, value in os.environ.items() if not key.startswith("CHICORY")}
        return {**clean, "CHICORY_CONFIG": str(self.home / "chicory.toml"), "PYTHONPATH": f"{ROOT}:{ROOT}/supervisor"}

    def start(self, *command, line=None, **environ):
        number = {} if line is None else {"CHICORYD_LIFELINE": str(line.fileno())}
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=self.home,
            env={**self.environ, **number, **environ},
            pass_fds=[] if line is None else [line.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def chicory(self, *arguments):
        return self.start("chicoryd.child", "chicory.cli:main", *arguments)

    def app(self):
        redis = RedisBrokerConfig(url=self.url, key_prefix=self.prefix)
        config = ChicoryConfig(broker=BrokerConfig(redis=redis))
        return Chicory(self.url, config=config)

    def wait_for_start(self, process):
        """A task notes that it runs by making a file; a file cannot tell, so it is looked for."""
        started = self.home / "started"
        deadline = time.monotonic() + PATIENCE
        while not started.exists():
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline, "the task does not start"
            time.sleep(0.005)
        started.unlink()


def end(process):
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


@pytest.fixture
def place(tmp_path, server):
    made = Place(tmp_path, server.url)
    yield made
    for process in made.processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


async def call(place, name, *args):
    async with place.app() as app:
        message = TaskMessage(name=name, args=list(args))
        await app.publish(message)
        return await app.result_of(message).get(timeout=PATIENCE)


async def send(place, name, *args):
    async with place.app() as app:
        await app.publish(TaskMessage(name=name, args=list(args)))


async def sizes(place):
    async with place.app() as app:
        return await app.broker.get_queue_sizes()


async def test_the_command_line_runs_tasks_until_sigterm(place):
    process = place.chicory("worker", "tasks:app", "--concurrency", "2")

    assert await call(place, "double", 21) == 42
    process.send_signal(signal.SIGTERM)

    code, _, err = end(process)
    assert code == 0, err
    assert "done=1" in err


async def test_a_worker_process_is_seen_and_its_task_cancelled(place):
    process = place.chicory("worker", "tasks:app", "--concurrency", "2")
    async with place.app() as app:
        await app.publish(message := TaskMessage(name="sleep", args=[500]))
        place.wait_for_start(process)
        result = app.result_of(message)
        with trio.fail_after(PATIENCE):
            while await result.state() is not TaskState.STARTED:
                await trio.sleep(0.05)
            (info,) = await app.backend.get_active_workers()
            assert (info.pid, info.concurrency) == (process.pid, 2)
            assert (await result.info()).worker == info.name

            assert await result.cancel()
            while (await app.broker.counters())["failed"] < 1:
                await trio.sleep(0.05)
        assert await result.state() is TaskState.CANCELLED

    process.send_signal(signal.SIGTERM)
    code, _, err = end(process)
    assert code == 0, err
    assert (await sizes(place)).dead == 0


async def test_the_flags_say_what_the_worker_does(place):
    await send(place, "no-such-task")
    await send(place, "double", 1)
    process = place.chicory("worker", "tasks:app", "--queue", "default", "--burst", "--no-dlq", "--no-scheduler")

    code, _, err = end(process)

    assert code == 0, err
    assert (await sizes(place)).dead == 1  # what is unknown is always kept
    assert (await sizes(place)).ready == 0


async def test_the_first_ctrl_c_drains_and_the_second_does_not_wait(place):
    process = place.chicory("worker", "tasks:app")
    await send(place, "sleep", 500)
    place.wait_for_start(process)

    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    process.send_signal(signal.SIGINT)

    code, _, err = end(process)
    assert code == 0, err
    assert (await sizes(place)).ready == 1


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["worker", "task:app"], 66, "did you mean 'tasks'?"),
        (["worker", "tasks:trio"], 66, "did you mean tasks:app?"),
        (["worker", "tasks:app", "--concurrency", "0"], 64, "--concurrency"),
        (["worker", "tasks:app", "--queue", "a b"], 78, "queues"),
    ],
)
def test_what_cannot_start_says_why_in_one_line(place, arguments, code, told):
    ended, _, err = end(place.chicory(*arguments))

    assert ended == code, err
    assert told in err.splitlines()[-1]


def test_without_a_broker_it_exits_69_when_told_to(place):
    place.url = f"redis://127.0.0.1:{free_port()}"
    place.configure(require_broker=True)

    for process in (place.chicory("worker", "tasks:app"), place.start("chicoryd.child", "chicory.worker.main:main")):
        code, _, err = end(process)

        assert code == 69, err
        assert "127.0.0.1" in err.splitlines()[-1]
        assert "Traceback" not in err


class Line:
    """chicoryd's end of a lifeline."""

    def __init__(self):
        self.socket, self.theirs = socket.socketpair()
        self.socket.settimeout(PATIENCE)
        self._file = self.socket.makefile("r")

    def next(self):
        """The next message."""
        return json.loads(self._file.readline())

    def hear(self, kind):
        """The next message of *kind*."""
        for text in self._file:
            message = json.loads(text)
            if message["t"] == kind:
                return message
        raise AssertionError(f"the line ended without {kind}")

    def say(self, kind, **facts):
        self.socket.sendall(json.dumps({"t": kind, **facts}).encode() + b"\n")

    def hang_up(self):
        for end in (self._file, self.socket, self.theirs):
            end.close()


@pytest.fixture
def line():
    made = Line()
    yield made
    made.hang_up()


async def test_a_supervised_worker_says_ready_beats_drains_and_says_bye(place, line):
    place.configure(heartbeat_interval=0.1)
    process = place.start(
        "chicoryd.child", "chicory.worker.main:main", line=line.theirs, CHICORYD_NAME="host:1:2:worker-1:1"
    )

    line.hear("ready")
    await send(place, "sleep", 500)
    place.wait_for_start(process)
    beat = line.hear("beat")
    while not beat["running"]:
        beat = line.hear("beat")
    assert (beat["fetched"], beat["state"]) == (1, "working")
    assert beat["rss"] > 0
    assert beat["lag"] >= 0
    assert beat["tasks"][0]["name"] == "sleep"
    line.say("dump")
    process.send_signal(signal.SIGINT)  # of a terminal; chicoryd alone says what it means
    line.say("stop")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    line.say("stop", grace=0)
    (task,) = line.hear("bye")["report"]["tasks"]
    assert (task["name"], task["end"]) == ("sleep", "returned")
    code, _, err = end(process)
    assert code == 0, err
    assert f"sleep ({task['id']}) for" in err
    assert "tasks.py:15 in sleep" in err, err


@pytest.mark.parametrize("entry", ["worker", "scheduler"])
async def test_nobody_is_ready_before_he_has_his_broker(place, line, entry):
    with running_server() as away:
        away.kill()
        place.url = away.url
        place.configure(heartbeat_interval=0.05)
        process = place.start("chicoryd.child", f"chicory.{entry}.main:main", line=line.theirs)

        heard = [line.next() for _ in range(10)]

        assert {each["t"] for each in heard} == {"beat"}
        if entry == "worker":
            assert heard[-1]["state"] == "away"
        away.start()
        line.hear("ready")
        line.say("stop")
        code, _, err = end(process)
        assert code == 0, err


async def test_a_worker_told_to_connect_anew_does_so_and_what_runs_goes_on(place, line, server):
    place.configure(heartbeat_interval=0.05)
    process = place.start("chicoryd.child", "chicory.worker.main:main", line=line.theirs, CHICORYD_NAME="w")
    line.hear("ready")
    await send(place, "sleep", 1.0)
    place.wait_for_start(process)

    def readers():
        with server.client() as client:
            return {each["id"] for each in client.client_list() if each["cmd"] == "xreadgroup"}

    with trio.fail_after(PATIENCE):
        while not (before := readers()):
            await trio.sleep(0.01)
        line.say("reconnect")
        while before & (now := readers()) or not now:
            await trio.sleep(0.01)
    await send(place, "sleep", 0.0)

    place.wait_for_start(process)
    while line.hear("beat")["done"] < 2:
        pass
    line.say("stop")
    code, _, err = end(process)
    assert code == 0, err
    assert (await sizes(place)).ready == 0
    assert "lease" not in err


async def test_a_worker_is_killed_first_when_memory_runs_out_and_refused_more_than_its_limit(place, line):
    place.configure(heartbeat_interval=0.05)
    file = place.home / "chicory.toml"
    file.write_text(file.read_text() + '[supervisor]\nmemory_hard = "256MiB"\n')
    process = place.start("chicoryd.child", "chicory.worker.main:main", line=line.theirs, CHICORYD_NAME="w")
    line.hear("ready")

    assert Path(f"/proc/{process.pid}/oom_score_adj").read_text() == "500\n"
    async with place.app() as app:
        await app.publish(TaskMessage(name="eat", args=[1024]))
        await app.publish(TaskMessage(name="eat", args=[1]))
        while line.hear("beat")["done"] < 2:
            pass
        (letter,) = await app.broker.get_dlq_messages()
    assert letter.error.startswith("MemoryError")
    line.say("stop")
    assert end(process)[0] == 0


def test_a_limit_of_memory_that_leaves_nothing_is_refused(place):
    file = place.home / "chicory.toml"
    file.write_text(file.read_text() + "[supervisor]\nmemory_hard = 9\n")

    code, _, err = end(place.start("chicoryd.child", "chicory.worker.main:main"))

    assert code == 78, err
    assert "supervisor.memory_hard lets no worker begin; give it " in err


async def test_a_worker_whose_chicoryd_has_gone_drains_and_leaves(place, line):
    process = place.start("chicoryd.child", "chicory.worker.main:main", line=line.theirs)
    line.hear("ready")
    await send(place, "sleep", 0.5)
    place.wait_for_start(process)

    line.hang_up()

    code, _, err = end(process)
    assert code == 0, err
    assert (await sizes(place)).ready == 0


async def test_a_thread_that_does_not_end_does_not_keep_the_process(place, line):
    place.configure(shutdown_timeout=0.1, cancel_grace=0.1)
    process = place.start("chicoryd.child", "chicory.worker.main:main", line=line.theirs, CHICORYD_NAME="stuck")
    line.hear("ready")
    await send(place, "dig")
    place.wait_for_start(process)

    line.say("stop")

    assert line.hear("bye")["report"]["left"] == 1
    code, _, err = end(process)
    assert code == 70, err
    # Not given back: the lease, or a report of the death, decides.
    assert (await sizes(place)).delivered == 1


async def test_a_worker_started_by_hand_logs_where_the_settings_say_and_obeys_the_same_signal(place):
    process = place.start(
        "chicoryd.child", "chicory.cli:main", "worker", "tasks:app", CHICORY_LOG_FILE="log", CHICORY_LOG_FORMAT="json"
    )
    await send(place, "sleep", 0)
    place.wait_for_start(process)
    (place.home / "log").rename(place.home / "moved")

    process.send_signal(signal.SIGUSR1)
    process.send_signal(signal.SIGTERM)

    code, _, err = end(process)
    assert (code, err) == (0, "")
    assert (place.home / "log").exists()


async def test_a_log_file_that_cannot_be_opened_is_named(place):
    process = place.start("chicoryd.child", "chicory.cli:main", "worker", "tasks:app", CHICORY_LOG_FILE="none/log")

    code, _, err = end(process)

    assert code == 78
    assert err == (
        f"Error: log.file: cannot open {place.home}/none/log: No such file or directory; "
        "set it to a file that this user may write\n"
    )


def told(process, text):
    """Wait until *process* says *text*; returns what it has said until then."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError("".join(lines))


async def test_a_worker_whose_loop_stands_still_says_why_and_dies_with_its_stacks(place, line):
    process = place.start("chicoryd.child", "chicory.worker.main:main", line=line.theirs)
    line.hear("ready")
    async with place.app() as app:
        message = TaskMessage(name="block")
        await app.publish(message)

    told(process, f"the event loop has stood still for 1.5 s: a task holds it; it runs block ({message.id}), at")
    stack = told(process, "time.sleep(1000)")
    process.send_signal(signal.SIGABRT)

    code, _, err = end(process)
    assert code == -signal.SIGABRT
    assert "in block" in stack
    assert "in block" in err
    assert "stood still" not in err


async def test_a_worker_whose_loop_stands_still_does_not_outlive_its_chicoryd(place, line):
    place.configure(shutdown_timeout=0.1)
    process = place.start("chicoryd.child", "chicory.worker.main:main", line=line.theirs)
    line.hear("ready")
    await send(place, "block")
    place.wait_for_start(process)

    gone = time.monotonic()
    line.hang_up()

    code, _, err = end(process)
    assert time.monotonic() - gone < 0.1 + 2 + 0.5, err
    assert code == 70, err
    assert "chicoryd has gone" in err
    assert (await sizes(place)).delivered == 1


async def test_a_c_call_that_holds_the_interpreter_for_longer_than_the_lease_loses_nothing(place, line):
    scheduler, worker = Line(), line
    keeper = place.start("chicoryd.child", "chicory.scheduler.main:main", line=scheduler.theirs)
    process = place.start("chicoryd.child", "chicory.worker.main:main", line=worker.theirs, CHICORYD_NAME="busy")
    scheduler.hear("ready")
    worker.hear("ready")
    scheduler.say("alive", consumers=["busy"])

    assert await call(place, "hold", 4.5) == "held"
    assert await call(place, "double", 4) == 8

    worker.say("stop")
    report = worker.hear("bye")["report"]
    assert (report["fetched"], report["done"], report["stale"]) == (2, 2, 0), end(process)
    assert (place.home / "started").read_text() == "once\n"
    scheduler.say("stop")
    assert scheduler.hear("bye")["report"]["reclaimed"] == 0
    assert end(process)[0] == end(keeper)[0] == 0
    scheduler.hang_up()


async def test_a_scheduler_buries_whom_it_was_told_of_before_it_stops(place, line):
    async with place.app() as app:
        await app.publish_many([TaskMessage(name="double", args=[number]) for number in range(600)])
        async with app.broker.consumer(["default"], name="victim", limit=600) as consumer:
            while (await app.broker.get_queue_sizes()).delivered < 600:
                await consumer.receive(600)
            process = place.start("chicoryd.child", "chicory.scheduler.main:main", line=line.theirs)
            line.hear("ready")
            line.say("dead", consumer="victim", why="killed by signal 9")
            line.say("stop")

            assert line.hear("bye")["report"]["reclaimed"] == 600
            assert end(process)[0] == 0


async def test_poison_ends_in_the_dead_letters_after_three_deliveries_and_no_neighbour_does(place, line):
    scheduler = place.start("chicoryd.child", "chicory.scheduler.main:main", line=line.theirs)
    line.hear("ready")
    async with place.app() as app:
        neighbours = [TaskMessage(name="sleep", args=[0.5]) for _ in range(5)]
        await app.publish_many([TaskMessage(name="poison", args=[0.2]), *neighbours])
        for number in range(3):
            name = f"worker-{number}"
            worker = place.start("chicoryd.child", "chicory.worker.main:main", CHICORYD_NAME=name)
            assert end(worker)[0] == 3
            line.say("dead", consumer=name, why="exited with status 3")
        worker = place.start("chicoryd.child", "chicory.worker.main:main")
        for neighbour in neighbours:
            await app.result_of(neighbour).get(timeout=PATIENCE)
        with trio.fail_after(PATIENCE):
            while (await app.broker.get_queue_sizes()).delivered:
                await trio.sleep(0.01)
        letters = await app.broker.get_dlq_messages()

    assert [(letter.task_name, letter.error) for letter in letters] == [
        ("poison", "WorkerLost: delivered 3 times, and each time its worker died: exited with status 3")
    ]
    worker.send_signal(signal.SIGTERM)
    assert end(worker)[0] == 0
    line.say("stop")
    assert end(scheduler)[0] == 0


async def test_a_scheduler_promotes_and_buries_whom_it_is_told(place, line):
    async with place.app() as app:
        await app.publish(TaskMessage(name="double", args=[1]))
        await app.publish(TaskMessage(name="double", args=[2]), delay=0.2)
        async with app.broker.consumer(["default"], name="victim", limit=1) as consumer:
            assert len(await consumer.receive(1)) == 1
            process = place.start("chicoryd.child", "chicory.scheduler.main:main", line=line.theirs)
            line.hear("ready")
            line.say("dead", consumer="victim", why="killed by signal 9")
            with trio.fail_after(PATIENCE):
                async with app.broker.consumer(["default"], name="heir", limit=2) as heir:
                    found = list(await heir.receive(2))
                    while len(found) < 2:
                        found += await heir.receive(2 - len(found))

    assert sorted((one.message.args[0], one.count) for one in found) == [(1, 2), (2, 1)]
    line.say("stop")
    line.hear("bye")
    assert end(process)[0] == 0


@pytest.mark.parametrize(
    ("change", "flags", "code", "told"),
    [
        (None, ["--app", "--broker"], 0, ""),
        (("concurrency", "concurency = 3"), [], 78, "did you mean"),
        (("app", "tasks:nothing"), ["--app"], 66, "tasks has no 'nothing'"),
        (("url", "nobody"), ["--broker"], 69, "redis"),
    ],
)
def test_the_check_finds_what_is_wrong(place, change, flags, code, told):
    config = place.home / "chicory.toml"
    match change:
        case ("concurrency", line):
            config.write_text(config.read_text() + line)
        case ("app", name):
            config.write_text(config.read_text().replace("tasks:app", name))
        case ("url", _):
            config.write_text(config.read_text().replace(place.url, "redis://127.0.0.1:1"))

    ended, _, err = end(place.start("chicoryd.child", "chicory.check.main:main", *flags))

    assert ended == code, err
    assert told in err
    assert len(err.splitlines()) <= 1


def test_a_memory_broker_cannot_be_shared_with_a_process(place):
    config = place.home / "chicory.toml"
    config.write_text(config.read_text().replace('"redis"', '"memory"'))

    code, _, err = end(place.start("chicoryd.child", "chicory.worker.main:main"))

    assert code == 78
    assert "lives within one process" in err
