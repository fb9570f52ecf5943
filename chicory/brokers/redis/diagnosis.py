"""What a Redis server keeps, what it may lose, and what to do about it."""

import time
from collections.abc import Iterator, Mapping

import attrs

from chicory.errors import BrokerRefused
from chicory.links.redis import Connection, ServerError
from chicory.links.redis_pool import parse_info, server_version
from chicory.types import Finding, Gravity

OK, NOTICE, WARNING, ERROR = Gravity.OK, Gravity.NOTICE, Gravity.WARNING, Gravity.ERROR

_SECTIONS = ("server", "memory", "persistence", "replication", "clients")
_SETTINGS = ("appendfsync", "save", "maxclients")
_FULL = 0.8  # the part of its memory after which a server counts as nearly full
_SKEW = 1.0


@attrs.frozen(kw_only=True)
class Symptoms:
    """What a server tells of itself.

    info: the fields of INFO; none when the user may not ask.  settings: of CONFIG GET; none likewise.
    skew: seconds that its clock is ahead of ours.  exposed: whether the way to it is neither encrypted nor local.
    """

    info: Mapping[str, str]
    settings: Mapping[str, str]
    skew: float = 0.0
    exposed: bool = False


async def ask(connection: Connection, timeout: float) -> Symptoms:
    """The symptoms of the server that *connection* leads to."""
    info: dict[str, str] = {}
    settings: dict[str, str] = {}
    try:
        for section in _SECTIONS:
            info |= parse_info(await connection.call("INFO", section, timeout=timeout))
        for name in _SETTINGS:
            found = [word.decode() for word in await connection.call("CONFIG", "GET", name, timeout=timeout)]
            settings |= dict(zip(found[::2], found[1::2], strict=True))
    except (BrokerRefused, ServerError):
        pass  # what the user may not see, is said not to be seen
    before = time.time()
    seconds, micros = await connection.call("TIME", timeout=timeout)
    skew = int(seconds) + int(micros) / 1e6 - (before + time.time()) / 2
    address = connection.address
    local = address.path is not None or address.host in ("localhost", "127.0.0.1", "::1")
    return Symptoms(info=info, settings=settings, skew=skew, exposed=not local and address.tls is None)


def diagnose(symptoms: Symptoms) -> list[Finding]:
    """The findings, in the order in which an operator should read them.  Pure."""
    info = symptoms.info
    if not info:
        text = "this user may not ask for INFO, so only the clock and the line were looked at"
        return [Finding(NOTICE, text, "ACL SETUSER NAME +info +config|get"), *_around(symptoms)]
    return [*_server(info), *_memory(info), *_persistence(info, symptoms.settings), *_copies(info), *_around(symptoms)]


def _server(info: Mapping[str, str]) -> Iterator[Finding]:
    version = ".".join(map(str, server_version(info)))
    name = "Valkey" if "valkey_version" in info else "Redis"
    if server_version(info) < (7, 0):
        yield Finding(ERROR, f"{name} {version} is too old", "upgrade it to Redis 7.0 or newer, or to Valkey")
    else:
        yield Finding(OK, f"{name} {version}")
    if info.get("loading", "0") != "0":
        yield Finding(ERROR, "it is still loading its data and answers nothing", "wait")


def _memory(info: Mapping[str, str]) -> Iterator[Finding]:
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        text = f"maxmemory-policy is {policy}: it may delete messages, so workers refuse it"
        yield Finding(ERROR, text, "CONFIG SET maxmemory-policy noeviction, and the same in its file")
    used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if not most:
        text = f"it uses {_size(used)} of memory, without a limit: a long queue may have the system kill it"
        yield Finding(NOTICE, text, "CONFIG SET maxmemory to what the machine can spare; a full server refuses senders")
    elif used >= most * _FULL:
        text = f"it uses {_size(used)} of {_size(most)}: when that is full, senders are refused"
        yield Finding(WARNING, text, "drain the queues, or CONFIG SET maxmemory to more")
    else:
        yield Finding(OK, f"it uses {_size(used)} of {_size(most)}")


def _persistence(info: Mapping[str, str], settings: Mapping[str, str]) -> Iterator[Finding]:
    log, fsync = info.get("aof_enabled") == "1", settings.get("appendfsync", "")
    if log and fsync == "always":
        yield Finding(OK, "what it acknowledged is on disk: neither its end nor the machine's loses a message")
    elif log:
        wait = "the last second" if fsync == "everysec" else "what the system has not written yet, often 30 seconds"
        text = f"killed it loses nothing; when the machine dies it loses {wait}, and runs again what ended in it"
        remedy = "CONFIG SET appendfsync always, where no message may be lost"
        yield Finding(OK if fsync == "everysec" else WARNING, text, remedy)
    elif settings.get("save", "unknown"):
        text = "it writes snapshots only: whenever it ends unexpectedly, all messages since the last one are lost"
        yield Finding(WARNING, text, "CONFIG SET appendonly yes, and the same in its file")
    else:
        text = "it writes nothing to disk: with its process all messages are gone"
        yield Finding(WARNING, text, "CONFIG SET appendonly yes, and the same in its file")
    for field, what in (("aof_last_write_status", "append-only file"), ("rdb_last_bgsave_status", "snapshot")):
        if info.get(field, "ok") != "ok":
            remedy = "look at its log; most often the disk is full, and then it refuses senders"
            yield Finding(ERROR, f"its last write of the {what} failed", remedy)


def _copies(info: Mapping[str, str]) -> Iterator[Finding]:
    if info.get("role") == "slave":
        main = f"{info.get('master_host')}:{info.get('master_port')}"
        yield Finding(ERROR, "it is a replica and takes no messages", f"connect to its main server, {main}")
    elif int(info.get("connected_slaves", 0)) == 0:
        yield Finding(NOTICE, "it has no replica: while it is down, nothing is taken and nothing runs")
    else:
        count = info["connected_slaves"]
        text = f"it has {count} replica(s), that follow a moment later: a failover loses what they had not got yet"
        yield Finding(NOTICE, text, "CONFIG SET min-replicas-to-write 1, so that it stops when it is cut off")


def _around(symptoms: Symptoms) -> Iterator[Finding]:
    way = "ahead of" if symptoms.skew > 0 else "behind"
    text = f"its clock is {abs(symptoms.skew):.3f} s {way} this machine's"
    if abs(symptoms.skew) >= _SKEW:
        yield Finding(NOTICE, f"{text}; delayed tasks go by its clock", "run an NTP client on both")
    else:
        yield Finding(OK, text)
    if symptoms.exposed:
        text = "the way to it is not encrypted, and leaves this machine: others may read messages and the password"
        yield Finding(WARNING, text, "write rediss:// where the server speaks TLS")
    limit = int(symptoms.settings.get("maxclients", 0))
    clients = int(symptoms.info.get("connected_clients", 0))
    if limit and clients >= limit * _FULL:
        yield Finding(WARNING, f"{clients} of {limit} connections are taken", "CONFIG SET maxclients to more")


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
