"""What is said of a Redis server by what it tells of itself."""

import pytest

from chicory.brokers.redis.diagnosis import Symptoms, diagnose
from chicory.types import Gravity

GOOD = {
    "redis_version": "7.0.15",
    "maxmemory_policy": "noeviction",
    "used_memory": str(100 * 2**20),
    "maxmemory": str(2**30),
    "aof_enabled": "1",
    "role": "master",
    "connected_slaves": "1",
}


def findings(*, settings=(("appendfsync", "always"),), skew=0.0, exposed=False, **info):
    return diagnose(Symptoms(info=GOOD | info, settings=dict(settings), skew=skew, exposed=exposed))


def test_of_a_good_server_nothing_worse_than_a_notice_is_said():
    assert {one.gravity for one in findings()} == {Gravity.OK, Gravity.NOTICE}
    assert any("neither its end nor the machine's loses a message" in one.what for one in findings())


@pytest.mark.parametrize(
    ("gravity", "what", "remedy", "facts"),
    [
        ("error", "Redis 6.2.1 is too old", "upgrade", {"redis_version": "6.2.1"}),
        ("ok", "Valkey 8.1.0", "", {"valkey_version": "8.1.0"}),
        ("error", "loading", "wait", {"loading": "1"}),
        ("error", "allkeys-lru", "maxmemory-policy noeviction", {"maxmemory_policy": "allkeys-lru"}),
        ("notice", "100 MiB of memory, without a limit", "CONFIG SET maxmemory", {"maxmemory": "0"}),
        ("warning", "900 MiB of 1.0 GiB", "drain", {"used_memory": str(900 * 2**20)}),
        ("ok", "loses the last second", "always", {"settings": [("appendfsync", "everysec")]}),
        ("warning", "often 30 seconds", "always", {"settings": [("appendfsync", "no")]}),
        ("warning", "snapshots only", "appendonly yes", {"aof_enabled": "0", "settings": [("save", "3600 1")]}),
        ("warning", "writes nothing to disk", "appendonly yes", {"aof_enabled": "0", "settings": [("save", "")]}),
        ("error", "append-only file failed", "disk is full", {"aof_last_write_status": "err"}),
        ("error", "snapshot failed", "disk is full", {"rdb_last_bgsave_status": "err"}),
        ("error", "a replica", "main:6379", {"role": "slave", "master_host": "main", "master_port": "6379"}),
        ("notice", "no replica", "", {"connected_slaves": "0"}),
        ("notice", "2.000 s ahead of", "NTP", {"skew": 2.0}),
        ("notice", "2.000 s behind", "NTP", {"skew": -2.0}),
        ("warning", "not encrypted", "rediss://", {"exposed": True}),
        (
            "warning",
            "90 of 100 connections",
            "maxclients",
            {"connected_clients": "90", "settings": [("maxclients", "100")]},
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_remedy(gravity, what, remedy, facts):
    (found,) = [one for one in findings(**facts) if what in one.what]

    assert found.gravity == gravity
    assert remedy in found.remedy


def test_where_nothing_may_be_asked_that_is_said():
    first, clock = diagnose(Symptoms(info={}, settings={}))

    assert "may not ask" in first.what
    assert "clock" in clock.what
