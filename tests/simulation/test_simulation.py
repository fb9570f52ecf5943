"""Workers and schedulers keep their promises whatever happens to processes, clocks and connections."""

import os
import random
import resource
import subprocess
import sys

import attrs
import pytest

from chicory.testing.simulation.__main__ import told
from chicory.testing.simulation.dice import rolled
from chicory.testing.simulation.plan import HITS, PUBLISHER, STRIKES, Job, Mishap, Plan, plan
from chicory.testing.simulation.seeds import failing
from chicory.testing.simulation.shrink import shrink
from chicory.testing.simulation.world import perform

A_FEW = range(150)
DIGESTS = "from tests.simulation.test_simulation import digests; print(*digests())"


def digests():
    return [perform(plan(seed)).trace.digest() for seed in range(8)]


def test_with_no_seed_anything_is_wrong():
    for seed in A_FEW:
        report = perform(plan(seed))
        assert not report.wrongs, told(report)


@pytest.mark.long
def test_with_none_of_many_seeds_either_and_in_time():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)

    found = list(failing(range(10_000), 2))

    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert not found, "\n\n".join(told(perform(plan(seed))) for seed in found[:3])
    # Two minutes on two cores, whatever else they do.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime <= 240


def test_the_same_seed_goes_the_same_way_in_every_process():
    environment = {**os.environ, "PYTHONHASHSEED": "7"}

    elsewhere = subprocess.run(
        [sys.executable, "-c", DIGESTS], capture_output=True, text=True, check=True, env=environment
    )

    assert digests() == digests() == elsewhere.stdout.split()
    assert len(set(digests())) == 8


def test_a_simulation_leaves_chance_as_it_was():
    random.seed(5)
    expected = random.random()
    random.seed(5)

    with rolled(1):
        within = random.random()

    assert random.random() == expected != within


def test_every_kind_of_mishap_happens():
    drawn = [mishap.what for seed in A_FEW for mishap in plan(seed).mishaps]

    assert set(drawn) == {*HITS, *STRIKES}
    assert sum(drawn.count(what) for what in ("pause", "cut", "deafen")) > 60


def test_a_plan_is_shrunk_to_what_it_takes():
    found = next(plan(seed) for seed in A_FEW if any(mishap.what == "pause" for mishap in plan(seed).mishaps))

    small = shrink(found, lambda smaller: any(mishap.what == "pause" for mishap in smaller.mishaps))

    assert [mishap.what for mishap in small.mishaps] == ["pause"]
    assert small.jobs == ()
    assert (small.concurrency, small.prefetch, small.supervised) == (1, 0, False)


def test_a_plan_is_data_that_can_be_written_down():
    found = plan(3)

    assert eval(repr(found), {"Plan": Plan, "Job": Job, "Mishap": Mishap}) == found
    assert attrs.evolve(found, jobs=()).jobs == ()


def test_a_reply_that_is_lost_makes_a_publisher_repeat_and_a_task_run_once():
    mishaps = (Mishap("lose the reply", PUBLISHER, 0.0, command="publish"),)

    report = perform(Plan(seed=1, jobs=(Job(at=1.0),), mishaps=mishaps))

    assert not report.wrongs
    assert str(report.trace).count("publish: j0") == 2
    assert str(report.trace).count("begins (") == 1


def test_the_command_finds_nothing_and_says_so():
    command = [sys.executable, "-m", "chicory.testing.simulation", "--count", "3", "--processes", "1"]

    done = subprocess.run(command, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 seeds, and nothing wrong")


def test_the_command_tells_all_of_one_seed():
    command = [sys.executable, "-m", "chicory.testing.simulation", "--seed", "0"]

    done = subprocess.run(command, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{perform(plan(0)).trace}\n"
