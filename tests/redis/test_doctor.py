"""`chicory doctor` on real servers."""

import json

import pytest
from click.testing import CliRunner

from chicory.cli import chicory
from tests.servers import free_port, running_server


@pytest.fixture
def examine(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def examine(url, *flags):
        environ = {"CHICORY_BROKER_TYPE": "redis", "CHICORY_BROKER_REDIS_URL": url}
        return CliRunner(env=environ).invoke(chicory, ["doctor", *flags])

    return examine


def test_a_healthy_server_is_told_to_be_so(examine):
    with running_server(appendonly=True) as server:
        told = examine(server.url, "--json")

    assert told.exit_code == 0, told.output
    answer = json.loads(told.stdout)
    assert answer["healthy"] is True
    assert any("loses the last second" in one["what"] for one in answer["findings"])


def test_a_server_that_workers_would_refuse_is_examined_all_the_same(examine):
    with running_server(options=("--maxmemory-policy", "allkeys-lru")) as server:
        told = examine(server.url)

    assert told.exit_code == 1
    assert "error    maxmemory-policy is allkeys-lru" in told.stdout
    assert "-> CONFIG SET maxmemory-policy noeviction" in told.stdout
    assert "writes nothing to disk" in told.stdout


def test_what_a_user_may_not_see_is_not_guessed(examine):
    with running_server() as server:
        with server.client() as client:
            client.acl_setuser("viewer", enabled=True, passwords=["+hunter2"], commands=["+@connection", "+time"])
        told = examine(f"unix://viewer:hunter2@{server.socket}")

    assert told.exit_code == 0, told.output
    assert "may not ask for INFO" in told.stdout
    assert "hunter2" not in told.output


def test_where_nobody_answers_it_says_so_and_exits_69(examine):
    told = examine(f"redis://127.0.0.1:{free_port()}")

    assert told.exit_code == 69
    assert "cannot connect" in told.stderr
