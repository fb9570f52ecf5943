"""The fleet as people see it."""

from chicoryd.events import Asked, Role, Said
from chicoryd.status import describe, table
from tests.unit.test_fleet import Kernel, plan


def shown(kernel):
    return table({"pid": 7, **describe(kernel.fleet, kernel.now)}).splitlines()


def test_a_line_for_each_slot_and_then_the_oldest_running_tasks():
    kernel = Kernel(plan())
    kernel.boot()
    tasks = [{"id": f"id{age}", "name": "dig", "age": float(age)} for age in (90_000, 7300, 130, 59, 58, 57)]
    first, second = kernel.all(Role.WORKER)
    kernel.post(Said(first.pid, {"t": "beat", "running": 6, "lag": 0.25, "rss": 3 * 2**20, "tasks": tasks}))
    kernel.exit(second.pid, -11)
    kernel.exit(kernel.one("worker-2").pid, 3)
    kernel.now += 0.5

    head, columns, _, _, one, two, *running = shown(kernel)

    assert head == "chicoryd 7 running for 0.5 s: generation 1, 1/2 workers ready, 6 tasks running, lag 0.2 s"
    assert columns.split("  ")[0] == "SLOT"
    assert " ".join(one.split()) == f"worker-1 ready 1 1 {first.pid} 0.5 s 0 6 250 ms 3 MB -"
    assert " ".join(two.split()) == "worker-2 down 1 2 - in 0.5 s 1 - - - exited with status 3"
    assert running == [
        "worker-1 runs dig (id90000) for 1 d 1 h",
        "worker-1 runs dig (id7300) for 2 h 1 min",
        "worker-1 runs dig (id130) for 2 min",
        "worker-1 runs dig (id59) for 59.0 s",
        "worker-1 runs dig (id58) for 58.0 s",
    ]


def test_the_summary_says_what_goes_on():
    kernel = Kernel(plan())
    seen = [kernel.fleet]
    kernel.boot()
    kernel.post(Said(kernel.all(Role.WORKER)[0].pid, {"t": "beat", "state": "working"}))
    seen.append(kernel.fleet)
    kernel.post(Said(kernel.all(Role.WORKER)[1].pid, {"t": "beat", "state": "away"}))
    kernel.post(Asked("quiet"))
    seen.append(kernel.fleet)
    kernel.post(Asked("stop"))
    seen.append(kernel.fleet)

    assert [describe(fleet, 0.0)["summary"] for fleet in seen] == [
        "starting, generation 1, 0/2 workers ready",
        "generation 1, 2/2 workers ready, broker ok",
        "generation 1, 2/2 workers ready, broker away, quiet",
        "stopping, 2 workers left",
    ]
