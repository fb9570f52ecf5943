"""The comparison with other queues computes right; how fast anything is, no test asks."""

import ast

import pytest

from benchmarks.figures import Target
from benchmarks.peers import journal
from benchmarks.peers.book import Book, Run, Slot, load, slots
from benchmarks.peers.journal import Event, Lateness, Recovery
from benchmarks.peers.page import amount, metric, page, readme
from benchmarks.peers.plots import PICTURES, bars
from benchmarks.peers.programs.work import ENDED, PROBE, RECORD, STARTED
from benchmarks.peers.roster import ENVIRONMENTS, OURS, PROGRAMS, declared, roster
from benchmarks.peers.verdicts import AIMS, Aim, best, middle, ratio, verdict, worst
from benchmarks.peers.workloads import CAP, WORKLOADS

RATE = metric("noop1", "rate")
BACK = metric("kill", "back")
PEERS = roster()


def ended(number, at, pid=1):
    return Event(number, pid, ENDED, at)


def started(number, at, pid=1):
    return Event(number, pid, STARTED, at)


def book(*runs):
    return Book(about={}, runs=[Run(Slot(*slot), figures) for slot, figures in runs])


def test_records_are_read_back_and_one_that_is_still_being_written_is_left():
    data = RECORD.pack(7, 42, ENDED, 1_500_000_000) + RECORD.pack(8, 42, STARTED, 2_000_000_000)

    assert journal.parse(data + b"half of") == [Event(7, 42, ENDED, 1.5), Event(8, 42, STARTED, 2.0)]


def test_a_journal_that_nobody_has_begun_is_empty(tmp_path):
    assert journal.read(tmp_path / "journal") == []


def test_the_probe_is_no_number_that_a_task_may_have():
    assert RECORD.unpack(RECORD.pack(PROBE, 1, ENDED, 0))[0] == PROBE
    assert journal.lost([ended(PROBE, 1)], 2) == 2


def test_what_is_lost_and_what_ran_twice_is_counted_by_ends():
    events = [ended(0, 1), ended(1, 2), ended(1, 3), started(2, 4)]

    assert journal.lost(events, 4) == 2
    assert journal.twice(events) == 1


def test_the_rate_begins_when_the_last_process_has_begun():
    alone = [ended(number, 1 + number / 10, pid=1) for number in range(10)]
    both = [ended(100 + number, 2 + number / 100, pid=1 + number % 2) for number in range(101)]

    # 99 tasks after the first of process 2, at 2.01, until 3.
    assert journal.rate(alone + both) == pytest.approx(100)


def test_a_process_that_came_when_all_was_over_does_not_shorten_the_time():
    events = [*[ended(number, number / 10) for number in range(11)], ended(11, 1.0, pid=2)]

    assert journal.rate(events) == pytest.approx(11)


def test_one_task_has_no_rate():
    assert journal.rate([ended(0, 1)]) == 0
    assert journal.rate([]) == 0


def test_latency_is_from_the_sending_to_the_first_run():
    events = [ended(0, 0.5), ended(2, 1.7), ended(1, 1.2), ended(2, 9.0)]

    assert journal.latencies(events, [1_000_000_000, 1_500_000_000, 2_000_000_000]) == pytest.approx([0.2, 0.2])


def test_lateness_counts_the_early_ones():
    events = [ended(0, 9.5), *[ended(number, 10 + number / 100) for number in range(1, 100)]]

    assert journal.lateness(events, 10.0) == Lateness(-0.5, pytest.approx(0.98), pytest.approx(0.99), 1)
    assert journal.lateness([], 10.0) is None


def test_recovery_is_the_end_of_the_last_task_that_the_victim_held():
    events = [
        started(0, 1, pid=9),
        ended(0, 2, pid=9),
        started(1, 4, pid=9),
        started(2, 4, pid=9),
        started(3, 4, pid=1),
        ended(3, 9, pid=1),
        ended(1, 6, pid=1),
        ended(2, 7.5, pid=1),
    ]

    assert journal.recovery(events, 5.0, {9}) == Recovery(held=2, back=2.5, unprovoked=0)


def test_there_is_no_recovery_while_a_task_is_away():
    events = [started(1, 4, pid=9), started(2, 4, pid=9), ended(1, 6)]

    assert journal.recovery(events, 5.0, {9}) == Recovery(held=2, back=None, unprovoked=0)


@pytest.mark.parametrize(
    ("events", "unprovoked"),
    [
        ([ended(1, 4.95, pid=9), ended(1, 6)], 0),
        ([ended(1, 3, pid=9), ended(1, 6)], 1),
        ([ended(1, 4.95, pid=1), ended(1, 6, pid=2)], 1),
        ([ended(1, 4.95, pid=9), ended(1, 6), ended(1, 7)], 1),
    ],
    ids=["just before the kill", "long before", "not the victim's", "a third time"],
)
def test_running_again_is_excused_by_a_kill_in_the_same_moment_alone(events, unprovoked):
    assert journal.recovery(events, 5.0, {9}).unprovoked == unprovoked


def test_ours_runs_right_before_each_other_or_once_for_all():
    order = list(slots([("noop1", False), ("due", True)], {"noop1": ["a", "b"], "due": ["a", "b"]}, rounds=1))

    assert order == [
        Slot("noop1", OURS, 0, "a"),
        Slot("noop1", "a", 0),
        Slot("noop1", OURS, 0, "b"),
        Slot("noop1", "b", 0),
        Slot("due", OURS, 0),
        Slot("due", "a", 0),
        Slot("due", "b", 0),
    ]


def test_ours_alone_runs_all_the_same():
    assert list(slots([("noop1", False)], {"noop1": []}, rounds=2)) == [Slot("noop1", OURS, 0), Slot("noop1", OURS, 1)]


def test_a_book_is_read_back_as_it_was_and_knows_what_is_left(tmp_path):
    path = tmp_path / "results.json"
    kept = book((("noop1", OURS, 0, "a"), {"rate": 5.0}), (("kill", "a", 0), {"back": None}))
    kept.runs.append(Run(Slot("noop1", "a", 0), failure="did nothing"))
    kept.save(path)

    assert load(path) == kept
    assert Slot("noop1", OURS, 0, "a") in load(path).done
    assert Slot("noop1", OURS, 0, "b") not in load(path).done


def test_a_ratio_is_of_runs_side_by_side():
    measured = book(
        (("noop1", OURS, 0, "a"), {"rate": 100.0}),
        (("noop1", "a", 0), {"rate": 10.0}),
        (("noop1", OURS, 0, "b"), {"rate": 30.0}),
        (("noop1", "b", 0), {"rate": 10.0}),
        # The machine has become ten times slower.
        (("noop1", OURS, 1, "a"), {"rate": 10.0}),
        (("noop1", "a", 1), {"rate": 1.0}),
    )

    assert ratio(measured, "noop1", "a", "rate") == 10
    assert ratio(measured, "noop1", "b", "rate") == 3
    assert ratio(measured, "noop1", "c", "rate") is None


def test_what_was_given_up_more_than_half_of_the_time_has_no_figure():
    given_up = book(*[(("kill", "a", number), {"back": back}) for number, back in enumerate([None, 12.0, None])])
    mostly = book(*[(("kill", "a", number), {"back": back}) for number, back in enumerate([None, 12.0, 11.0])])

    assert middle(given_up, "kill", "a", "back") is None
    assert middle(mostly, "kill", "a", "back") == 12.0
    assert worst(mostly, "kill", "a", "back") == 12.0


def test_the_best_has_the_most_or_the_least_as_the_figure_asks():
    measured = book(
        (("noop1", "a", 0), {"rate": 10.0}),
        (("noop1", "b", 0), {"rate": 20.0}),
        (("kill", "a", 0), {"back": 1.0}),
        (("kill", "b", 0), {"back": 2.0}),
    )

    assert best(measured, "noop1", RATE, ["a", "b"]) == "b"
    assert best(measured, "kill", BACK, ["a", "b"]) == "a"
    assert best(measured, "kill", BACK, ["c"]) == ""


@pytest.mark.parametrize(("mine", "met"), [(300.0, True), (299.0, False)])
def test_an_aim_is_held_against_the_best_that_delivers_at_least_once(mine, met):
    measured = book(
        (("noop1", OURS, 0, "safe"), {"rate": mine}),
        (("noop1", "safe", 0), {"rate": 20.0}),
        (("noop1", OURS, 0, "fast"), {"rate": mine}),
        (("noop1", "fast", 0), {"rate": 1000.0}),
    )
    aim = Aim(workload="noop1", metric="rate", target=Target(15))

    found = verdict(measured, aim, RATE, safe=["safe"], everybody=["safe", "fast"])

    assert (found.best, found.met) == ("safe", met)


def test_an_aim_against_all_is_held_against_the_fastest_too():
    measured = book(
        (("noop1", OURS, 0, "fast"), {"rate": 10.0}),
        (("noop1", "fast", 0), {"rate": 1000.0}),
    )
    aim = Aim(workload="noop1", metric="rate", target=Target(1), against="all")

    assert verdict(measured, aim, RATE, safe=[], everybody=["fast"]).met is False


def test_a_count_that_must_be_none_is_judged_by_the_worst_round():
    measured = book(*[(("kill", OURS, number), {"lost": lost}) for number, lost in enumerate([0.0, 0.0, 1.0])])
    aim = Aim(workload="kill", metric="lost", target=Target(0, at_most=True, absolute=True))

    found = verdict(measured, aim, metric("kill", "lost"), safe=[], everybody=[])

    assert (found.ours, found.met) == (1.0, False)


def test_what_was_not_measured_is_neither_met_nor_missed():
    aim = Aim(workload="noop1", metric="rate", target=Target(15))

    assert verdict(book(), aim, RATE, safe=["a"], everybody=["a"]).met is None


def test_every_aim_is_about_a_figure_that_there_is():
    for aim in AIMS:
        assert metric(aim.workload, aim.metric).key == aim.metric


def test_figures_read_as_people_write_them():
    assert amount(12345.6, RATE) == "12 346/s"
    assert amount(0.256, BACK) == "0.26 s"
    assert amount(None, BACK) == "–"


def test_the_page_shows_losses_and_who_is_missing():
    first, second = [peer.key for peer in PEERS if peer.key != OURS][:2]
    measured = book(
        (("noop1", OURS, 0, first), {"rate": 10.0, "lost": 0.0, "twice": 0.0}),
        (("noop1", first, 0), {"rate": 20.0, "lost": 0.0, "twice": 3.0}),
    )
    measured.absent[second] = "no such version"

    text = page(measured, PEERS)

    assert "| 0.5 | ≥ 15 × | **missed** |" in text
    assert f"| {declared(first).name} | 20/s | 0 | 3 | 0.5 |" in text
    assert f"| {declared(second).name} | – | – | – | not installed |" in text
    assert "no such version" in text


def test_a_wait_that_was_given_up_is_told_as_such():
    first = next(peer.key for peer in PEERS if peer.key != OURS)
    measured = book((("kill", first, 0), {"back": None, "lost": 3.0}))

    assert f"| {declared(first).name} | > {CAP:g} s |" in page(measured, PEERS)


def test_the_readme_gets_the_aims_between_its_marks():
    measured = book((("noop1", OURS, 0, "celery"), {"rate": 300.0}), (("noop1", "celery", 0), {"rate": 10.0}))
    measured.about.update(cores="2", python="CPython", server="Redis")
    text = "before\n<!-- peers -->\nold\n<!-- end of peers -->\nafter\n"

    told = readme(text, measured, PEERS)

    assert told.startswith("before\n<!-- peers -->\nOne round on 2 cores")
    assert "| 30 | ≥ 15 × | met |" in told
    assert "old" not in told
    assert told.endswith("<!-- end of peers -->\nafter\n")
    assert readme(told, measured, PEERS) == told


def test_the_readme_has_the_marks():
    text = (PROGRAMS.parents[2] / "README.md").read_text()
    measured = book((("noop1", OURS, 0, "celery"), {"rate": 300.0}), (("noop1", "celery", 0), {"rate": 10.0}))
    measured.about.update(cores="2", python="CPython", server="Redis")

    assert "| 30 | ≥ 15 × | met |" in readme(text, measured, PEERS)


def test_a_page_of_nothing_says_so():
    text = page(book(), PEERS)

    assert "not run yet" in text
    assert "aimed" not in text


def test_a_readme_without_marks_is_refused():
    with pytest.raises(ValueError, match="no <!-- peers -->"):
        readme("nothing", book(), PEERS)


def test_bars_stand_in_order_and_who_gave_up_comes_last():
    measured = book(
        (("kill", "celery", 0), {"back": None}),
        (("kill", "arq", 0), {"back": 20.0}),
        (("kill", OURS, 0), {"back": 0.1}),
    )

    assert bars(measured, PEERS, "kill", "back") == [(OURS, 0.1), ("arq", 20.0), ("celery", None)]


def test_every_picture_is_about_figures_that_there_are():
    for panels in PICTURES.values():
        for workload, key in panels:
            assert metric(workload, key).key == key


def test_ours_is_the_first_and_needs_no_environment():
    assert PEERS[0].key == OURS
    assert not PEERS[0].python.startswith(str(ENVIRONMENTS))


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.key)
def test_a_program_declares_what_the_protocol_needs(peer):
    assert peer.settings
    assert set(peer.brokers) <= {"redis", "rabbitmq"}
    assert set(peer.rates) == {"noop", "sleep", "bulk", "single"}
    assert set(peer.cannot) <= set(WORKLOADS)
    if peer.key != OURS:
        # The same versions whenever it is made again.
        assert all("==" in requirement for requirement in peer.requirements)


@pytest.mark.parametrize("path", sorted(PROGRAMS.glob("with_*.py")), ids=lambda path: path.stem)
def test_a_program_can_be_compiled_and_has_what_is_called(path):
    tree = ast.parse(path.read_text())
    compile(tree, path, "exec")
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}

    assert {"opened", "commands"} <= functions
    # streaQ's second program sends with the first one's.
    assert {"one", "many", "later"} <= functions or "Producer" in imported
