"""The oracle itself: each kind of wrong is seen, and what a fault explains is not taken for wrong."""

import math

import pytest

from tests.faults.figures import Figures, total
from tests.faults.ledger import CLOSED, Fault, Ledger


@pytest.fixture
def ledger(tmp_path):
    made = Ledger(tmp_path / "ledger")
    made.send("a", due=50.0)
    made.ack(["a"])
    return made


def write(ledger, *lines):
    """Lines of `what pid count time`, all of the task `a`, at a unix time that is 100 seconds later."""
    for line in lines:
        what, pid, count, at = line.split()
        with ledger.path.open("a") as file:
            file.write(f"{what} a {count} {pid} {at} {float(at) + 100}\n")


def wrongs(verdict):
    return {name for name in verdict.__slots__ if not name.startswith("__") and getattr(verdict, name)}


def test_one_run_that_ended_is_right(ledger):
    write(ledger, "start 1 1 10", "end 1 1 11")

    assert ledger.judge(results=["a"]).clean()


def test_what_was_acknowledged_and_is_nowhere_is_lost(ledger):
    assert wrongs(ledger.judge()) == {"lost"}
    assert ledger.judge(queued=["a"]).clean()
    assert ledger.judge(dead=["a"]).clean()


def test_what_nobody_sent_is_a_phantom(ledger):
    write(ledger, "start 1 1 10", "end 1 1 11")
    del ledger.sent["a"]

    assert wrongs(ledger.judge()) == {"phantom"}


def test_what_starts_before_it_is_due_is_early(ledger):
    write(ledger, "start 1 1 -51", "end 1 1 11")

    assert wrongs(ledger.judge()) == {"early"}


def test_what_ended_and_runs_again_for_no_reason_is_repeated(ledger):
    write(ledger, "start 1 1 10", "end 1 1 11", "start 2 2 20", "end 2 2 21")

    assert wrongs(ledger.judge()) == {"repeated"}


def test_a_kill_between_the_end_and_its_acknowledgement_explains_a_second_run(ledger):
    write(ledger, "start 1 1 10", "end 1 1 11", "start 2 2 20", "end 2 2 21")
    ledger.faults = [Fault("SIGKILL", 11.5, 11.5, pid=1)]
    assert ledger.judge().clean()

    ledger.faults = [Fault("SIGKILL", 11.5, 11.5, pid=2)]
    assert wrongs(ledger.judge()) == {"repeated"}

    ledger.faults = [Fault("SIGKILL", 13.0, 13.0, pid=1)]
    assert wrongs(ledger.judge()) == {"repeated"}


def test_two_runs_that_are_alive_together_overlap(ledger):
    write(ledger, "start 1 1 10", "start 2 2 11", "end 1 1 12", "end 2 2 13")

    assert "overlapping" in wrongs(ledger.judge())


def test_a_run_is_alive_until_its_process_was_killed(ledger):
    write(ledger, "start 1 1 10", "start 2 2 11", "end 2 2 13")

    ledger.faults = [Fault("SIGKILL", 10.5, 10.5, pid=1)]
    assert ledger.judge().clean()

    ledger.faults = [Fault("SIGKILL", 12.0, 12.0, pid=1)]
    assert wrongs(ledger.judge()) == {"overlapping"}


def test_what_a_process_still_began_while_it_was_killed_is_explained(ledger):
    write(ledger, "start 1 1 10.001", "start 2 2 11", "end 2 2 13")

    ledger.faults = [Fault("SIGKILL", 10.0, math.inf, pid=1)]
    assert ledger.judge().clean()

    ledger.faults = [Fault("SIGKILL", 10.0, 10.0, pid=1)]
    assert wrongs(ledger.judge()) == {"interrupted"}


def test_a_run_without_an_end_or_a_death_is_still_alive(ledger):
    write(ledger, "start 1 1 10", "start 2 2 11", "end 2 2 13")

    assert [run.pid for run in ledger.running()] == [1]
    assert wrongs(ledger.judge()) == {"overlapping"}


def test_what_is_cut_for_no_reason_is_interrupted(ledger):
    write(ledger, "start 1 1 10", "cut 1 1 11", "start 2 1 20", "end 2 1 21")
    assert wrongs(ledger.judge()) == {"interrupted"}

    ledger.faults = [Fault("stop", 10.9, math.inf)]
    assert ledger.judge().clean()


def test_a_success_without_a_stored_result_is_seen(ledger):
    write(ledger, "start 1 1 10", "end 1 1 11")

    assert wrongs(ledger.judge(results=[])) == {"unknown_results"}


def test_what_is_finished_and_still_queued_is_unsettled(ledger):
    write(ledger, "start 1 1 10", "end 1 1 11")

    assert wrongs(ledger.judge(queued=["a"])) == {"unsettled"}
    assert wrongs(ledger.judge(queued=["a"], dead=["a"])) == {"unsettled"}


def test_a_fault_of_one_process_explains_nothing_of_another(ledger):
    write(ledger, "start 1 1 10", "cut 1 1 11", "start 2 1 20", "end 2 1 21")
    ledger.faults = [Fault("SIGSTOP", 10.0, 12.0, pid=2)]

    assert wrongs(ledger.judge()) == {"interrupted"}


def test_recovery_is_timed_from_the_end_of_a_fault_until_what_it_cut_runs_again(ledger):
    write(ledger, "start 1 1 10", "cut 1 1 11", "start 2 1 20", "end 2 1 21")
    ledger.faults = [Fault("server stopped", 10.5, 17.0)]

    assert ledger.recoveries() == [3.0]


def test_recovery_from_a_fault_that_cut_nothing_is_the_next_end(ledger):
    write(ledger, "start 1 1 10", "end 1 1 15")
    ledger.faults = [Fault("reset", 12.0, 12.5), Fault("reset", 13.0, math.inf), Fault("reset", 16.0, 16.0)]

    assert ledger.recoveries() == [2.5, 2.0]


def test_a_page_comes_to_what_was_found_and_closing_it_again_replaces_that(ledger):
    write(ledger, "start 1 1 10", "cut 1 1 11", "start 2 1 20", "start 2 3 20.5", "end 2 1 21", "end 2 3 21")
    ledger.faults = [Fault("stop", 10.9, 12.0)]
    found = Figures(tasks=1, faults=1, again=2, unexplained=1, overlapping=1, recoveries=(8.0,))

    try:
        for _ in range(2):
            ledger.close(ledger.judge())
        assert total(CLOSED.values()) == found
        assert str(found).startswith("1 tasks, lost 0, ran again 2 (1 for no reason), two at once 1, early 0")
    finally:
        CLOSED.clear()


def test_a_rerun_is_timed_from_the_kill(ledger):
    write(ledger, "start 1 1 10", "start 2 2 12.5", "end 2 2 13")
    ledger.faults = [Fault("SIGKILL", 12.0, 12.0, pid=1)]

    assert ledger.reruns_after(1, 12.0) == {"a": 0.5}


def test_a_rerun_is_timed_up_to_some_delivery_and_not_of_what_ended_all_the_same(ledger):
    write(ledger, "start 1 1 10", "start 2 2 12.5", "end 2 2 13", "start 3 3 14")

    assert ledger.reruns_after(2, 12.7) == {"a": pytest.approx(1.3)}
    assert ledger.reruns_after(2, 12.7, highest=1) == {}
    assert ledger.reruns_after(3, 15.0) == {"a": None}
    write(ledger, "end 3 3 16")
    assert ledger.reruns_after(3, 15.0) == {}


def test_what_is_to_run_at_most_once_may_be_lost_and_not_repeated_whatever_happened(ledger):
    assert ledger.judge(once=["a"]).clean()

    write(ledger, "start 1 1 10", "start 2 2 12", "end 2 2 13")
    ledger.faults = [Fault("SIGKILL", 11.0, 11.0, pid=1)]
    assert ledger.judge().clean()
    assert wrongs(ledger.judge(once=["a"])) == {"repeated"}
