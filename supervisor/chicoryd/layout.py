"""An entry of the log as bytes: lines for people, or JSON.  Pure."""

import json
import re
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import attrs

from chicoryd.sink import LIMIT

_CUT = " ... (cut)"
# What would move a terminal's cursor, or begin a line of its own: controls, and the marks that turn the text around.
_CONTROL = re.compile("[\0-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_PASSWORD = re.compile(r"(?<=://)[^/\s@]*:[^/\s@]*@")


@attrs.frozen(kw_only=True)
class Entry:
    """What happened.

    at: unix seconds.
    consumer: the incarnation that says so, where it has a name.
    detail: more lines than one, such as a dump; exc: the traceback of an exception.
    """

    at: float
    level: str
    logger: str
    message: str
    pid: int
    consumer: str = ""
    detail: str = ""
    exc: str = ""


Layout = Callable[[Entry], list[bytes]]


def console(entry: Entry) -> list[bytes]:
    """One line, and the lines of its details, which are indented, so that none can be taken for an entry.

    They come in chunks of whole lines, each of at most LIMIT bytes.
    """
    stamp = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(entry.at))},{int(entry.at % 1 * 1000):03}"
    lines = [f"{stamp} {entry.level} {entry.logger}: {entry.message}"]
    lines += [f"    {line}" for text in (entry.detail, entry.exc) for line in text.splitlines()]
    chunks = [b""]
    for line in map(_printable, lines):
        if len(chunks[-1]) + len(line) > LIMIT:
            chunks.append(b"")
        chunks[-1] += line
    return [chunk for chunk in chunks if chunk]


def as_json(entry: Entry) -> list[bytes]:
    """One line of JSON, of at most LIMIT bytes: `cut` names the fields that had to be shortened."""
    at = datetime.fromtimestamp(entry.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    facts: dict[str, object] = {"ts": at, "level": entry.level, "logger": entry.logger[:200], "pid": entry.pid}
    if entry.consumer:
        facts["consumer"] = entry.consumer
    texts = {name: _PASSWORD.sub("***@", getattr(entry, name)) for name in ("message", "detail", "exc")}
    texts = {name: text for name, text in texts.items() if text or name == "message"}
    line = _packed({**facts, **texts})
    if len(line) <= LIMIT:
        return [line]
    cut: list[str] = []
    for left, (name, text) in zip(range(len(texts), 0, -1), texts.items(), strict=True):
        used = len(_packed({**facts, "cut": [*cut, name]}))
        kept = _shortened(name, text, (LIMIT - used) // left)
        cut += [name] if kept != text else []
        facts[name] = kept
    return [_packed({**facts, "cut": cut})]


LAYOUTS: Mapping[str, Layout] = {"console": console, "json": as_json}


def _printable(line: str) -> bytes:
    """*line* as it can do no harm to a terminal, with its end."""
    text = _CONTROL.sub(lambda found: ascii(found[0])[1:-1], _PASSWORD.sub("***@", line))
    encoded = f"{text}\n".encode()
    return encoded if len(encoded) <= LIMIT else _clipped(encoded) + f"{_CUT}\n".encode()


def _clipped(encoded: bytes) -> bytes:
    return encoded[: LIMIT - len(_CUT) - 1].decode(errors="ignore").encode()


def _shortened(name: str, text: str, room: int) -> str:
    """As much of *text* as takes *room* bytes of a line: of a traceback its end, which says what it was."""
    whole = text[-room:] if name == "exc" else text[:room]
    sizes = range(len(whole) + 1)

    def part(size: int) -> str:
        return whole[len(whole) - size :] if name == "exc" else whole[:size]

    fits = bisect_right(sizes, room, key=lambda size: len(_packed({name: part(size)})))
    return text if fits > len(text) else part(max(fits - 1, 0))


def _packed(facts: Mapping[str, object]) -> bytes:
    return json.dumps(facts, separators=(",", ":")).encode() + b"\n"
