"""`chicory schedule` on a real server: what it shows, that a pause is the broker's, and what it says of mistakes."""

import json
import sys
import time

import pytest
import trio
from click.testing import CliRunner

from chicory.cli import chicory
from chicory.ids import new_id
from chicory.loading import import_app
from chicory.schedules.entry import Entry
from tests.servers import redis_server

__all__ = ["redis_server"]

TASKS = """
from chicory import BrokerType, Chicory

app = Chicory(broker=BrokerType.REDIS)


@app.cron("*/15 9-17 * * MON-FRI", tz="Europe/Rome", name="quarterly")
@app.every(hours=1, name="hourly", misfire="skip")
@app.task(name="report")
async def report() -> None: ...
"""


@pytest.fixture
def project(tmp_path, monkeypatch, redis_server):
    """The current directory has the tasks and the settings of an app that nobody else shares its keys with."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = f"tasks_{new_id()}"
    (tmp_path / f"{name}.py").write_text(TASKS)
    (tmp_path / "chicory.toml").write_text(
        f'app = "{name}:app"\n[broker.redis]\nurl = "{redis_server.url}"\nkey_prefix = "{name}"\n'
    )
    monkeypatch.setenv("CHICORY_CONFIG", str(tmp_path / "chicory.toml"))
    yield name
    sys.modules.pop(name, None)


@pytest.fixture
def run(project):
    def run(*words, code=0):
        # A process imports its app once; here one process plays many.
        sys.modules.pop(project, None)
        told = CliRunner().invoke(chicory, ["schedule", *words])
        assert told.exit_code == code, told.output
        return told

    return run


def rows(told, what="schedules"):
    answer = json.loads(told.stdout)
    assert answer["schema"] == 1
    return answer[what]


def ask(project, question):
    async def asked():
        async with import_app(f"{project}:app") as app:
            return await question(app.broker.timetable())

    return trio.run(asked)


def test_all_schedules_are_listed_with_what_they_say(run):
    hourly, quarterly = rows(run("ls", "--json"))

    assert quarterly == {
        "name": "quarterly",
        "when": "cron */15 9-17 * * MON-FRI Europe/Rome",
        "task": "report",
        "misfire": "once",
        "state": "active",
        "last": None,
        "next": quarterly["next"],
    }
    assert quarterly["next"][-6:] in ("+01:00", "+02:00")
    assert (hourly["name"], hourly["when"], hourly["misfire"]) == ("hourly", "every 3600 s", "skip")


def test_a_list_for_people_has_a_line_for_each(run):
    head, hourly, quarterly = run("ls").stdout.splitlines()

    assert head.split() == ["NAME", "WHEN", "TASK", "MISFIRE", "STATE", "LAST", "NEXT"]
    assert hourly.startswith("hourly     every 3600 s")
    assert " active " in quarterly


def test_looking_begins_nothing(run, project):
    run("ls")
    run("next")

    assert ask(project, lambda timetable: timetable.look([])).known == {}


def test_the_last_slot_is_shown_and_what_left_the_code_is_gone(run, project):
    gone = Entry("gone", "default", "every 5 s")

    async def fire(timetable):
        look = await timetable.look([gone])
        entry = Entry("hourly", "default", "every 3600 s")
        schedule = import_app(f"{project}:app").schedules["hourly"]
        slot = look.now // 3600 * 3600
        assert await timetable.fire(entry, slot, schedule.message(slot))
        return slot

    slot = ask(project, fire)

    hourly, _, last = rows(run("ls", "--json"))
    assert hourly["last"] == time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(slot))
    assert hourly["next"] == time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(slot + 3600))
    assert (last["name"], last["when"], last["state"], last["next"]) == ("gone", "every 5 s", "gone", None)


def test_the_next_slots_come_in_order_and_without_what_is_paused(run):
    slots = rows(run("next", "-n", "40", "--json"), "slots")
    assert len(slots) == 40
    assert {one["name"] for one in slots} == {"hourly", "quarterly"}

    run("pause", "quarterly")

    assert {one["name"] for one in rows(run("next", "--json"), "slots")} == {"hourly"}
    assert len(run("next", "hourly", "-n", "3").stdout.splitlines()) == 4


def test_a_pause_is_kept_by_the_broker_until_it_is_resumed(run):
    assert run("pause", "hourly").stderr == "hourly is paused.\n"
    assert run("pause", "hourly").stderr == "hourly was paused already.\n"
    assert [one["state"] for one in rows(run("ls", "--json"))] == ["paused", "active"]

    assert run("resume", "hourly").stderr == "hourly goes on.\n"
    assert run("resume", "hourly").stderr == "hourly was not paused.\n"
    assert [one["state"] for one in rows(run("ls", "--json"))] == ["active", "active"]


def test_an_unknown_name_is_told_with_the_nearest(run):
    for command in ("pause", "resume", "next"):
        assert "there is no schedule 'hourli'; did you mean 'hourly'?" in run(command, "hourli", code=64).stderr


def test_a_line_is_explained(run):
    told = run("check", "30 2 29 2 *", "--tz", "Europe/Rome", "-n", "2").stdout.splitlines()

    assert told[0].endswith("(Europe/Rome)")
    assert "02:30" in told[0]
    assert [line[4:] for line in told[1:]] == ["-02-29T02:30:00+01:00"] * 2
    answer = json.loads(run("check", "* * * * *", "--json").stdout)
    assert (answer["schema"], answer["means"], len(answer["slots"])) == (1, "Every minute", 5)


def test_a_wrong_line_is_refused_with_what_to_write(run):
    told = run("check", "61 * * * *", code=64)

    assert told.stdout == ""
    assert "bad minute; write *, 0-59" in told.stderr
    assert "did you mean 'Europe/Rome'?" in run("check", "* * * * *", "--tz", "Europe/Rom", code=64).stderr


def test_without_an_app_it_says_where_to_name_one(run, monkeypatch, tmp_path):
    (tmp_path / "chicory.toml").write_text("")

    assert "say --app module:app" in run("ls", code=78).stderr


def test_without_a_server_it_exits_69(run, tmp_path):
    (tmp_path / "chicory.toml").write_text(
        (tmp_path / "chicory.toml").read_text().replace("unix://", "unix:///nowhere")
    )

    assert "cannot connect" in run("ls", code=69).stderr


def test_the_memory_broker_has_nothing_to_show(run, monkeypatch, project, tmp_path):
    (tmp_path / f"{project}.py").write_text(TASKS.replace("REDIS", "MEMORY"))

    assert "the memory broker lives within one process" in run("ls", code=78).stderr
