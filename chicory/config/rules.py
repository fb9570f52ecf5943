"""What a setting may be: one rule for each kind of value, for code, files and the environment alike.

`check` takes a typed value and is strict: no "5" for 5, no 3.9 for 3, no True for 1.  `parse` takes the text of an
environment variable or a flag.  Both raise ValueError, and `wants` says what is allowed.  Calling a rule is `check`
with the types a user may write, which is how static checkers see what a setting accepts.
"""

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Generic, Literal, TypeVar
from urllib.parse import SplitResult, urlsplit, urlunsplit

from chicory.secret import HasSecretValue, SecretStr

In = TypeVar("In")
T = TypeVar("T")
E = TypeVar("E", bound=Enum)
S = TypeVar("S", bound=str)


class Rule(Generic[In, T]):
    """One kind of value."""

    wants: str
    secret: bool = False
    """Whether values are shown as asterisks."""
    path: Literal["", "directory", "file"] = ""
    """What a value is the path of: a relative one in a file means beside that file."""

    def __call__(self, value: In) -> T:
        return self.check(value)

    def check(self, value: object) -> T:
        """*value* as it is kept."""
        raise NotImplementedError

    def parse(self, text: str) -> T:
        """The value that *text* stands for."""
        return self.check(text)


class Maybe(Rule[In | None, T | None]):
    """A rule, or None.  Empty text is None: so a variable can take away what a file says."""

    def __init__(self, rule: Rule[In, T]) -> None:
        self.rule = rule
        self.wants = rule.wants
        self.secret = rule.secret
        self.path = rule.path

    def check(self, value: object) -> T | None:
        return None if value is None else self.rule.check(value)

    def parse(self, text: str) -> T | None:
        return self.rule.parse(text) if text else None


class Integer(Rule[int, int]):
    """A whole number from *low* to *high*."""

    def __init__(self, low: int, high: int | None = None) -> None:
        self.low = low
        self.high = high
        self.wants = f"a whole number from {low} to {high}" if high is not None else f"a whole number of {low} or more"

    def check(self, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(value)
        if value < self.low or (self.high is not None and value > self.high):
            raise ValueError(value)
        return value

    def parse(self, text: str) -> int:
        return self.check(int(text))


class Seconds(Rule[float, float]):
    """A finite number of seconds, more than zero or (*zero*) zero too.

    The cap keeps a deadline in the range of every clock and of poll(2), which counts milliseconds in 32 bits.
    """

    CAP = 2_000_000.0

    def __init__(self, *, zero: bool = False) -> None:
        self.zero = zero
        self.wants = f"seconds, {'0 or more' if zero else 'more than 0'} and at most {self.CAP:.0f}"

    def check(self, value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise ValueError(value)
        if value < 0 or value > self.CAP or (value == 0 and not self.zero):
            raise ValueError(value)
        return float(value)

    def parse(self, text: str) -> float:
        return self.check(float(text))


class Fraction(Rule[float, float]):
    """A number from 0 to 1."""

    wants = "a number from 0 to 1"

    def check(self, value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
            raise ValueError(value)
        return float(value)

    def parse(self, text: str) -> float:
        return self.check(float(text))


class Size(Rule[int | str, int]):
    """Bytes, at most *high*: a number, or text such as 512MiB."""

    UNITS = ("", "KiB", "MiB", "GiB", "TiB")

    def __init__(self, high: int | None = None) -> None:
        self.high = high
        most = "" if high is None else f", at most {high}"
        self.wants = f"bytes, or a size such as {'512MiB' if high is None else '64KiB'}{most}"

    def check(self, value: object) -> int:
        found = re.fullmatch(r"(\d+)\s*([KMGT]iB)?", value.strip()) if isinstance(value, str) else None
        if found is not None:
            value = int(found[1]) * 1024 ** self.UNITS.index(found[2] or "")
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(value)
        if self.high is not None and value > self.high:
            raise ValueError(value)
        return value


class Switch(Rule[bool, bool]):
    """On or off."""

    wants = "true or false"
    WORDS: Mapping[str, bool] = {
        **dict.fromkeys(("true", "yes", "on", "1"), True),
        **dict.fromkeys(("false", "no", "off", "0"), False),
    }

    def check(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise ValueError(value)
        return value

    def parse(self, text: str) -> bool:
        try:
            return self.WORDS[text.strip().lower()]
        except KeyError:
            raise ValueError(text) from None


class Text(Rule[str, str]):
    """Any text but none."""

    wants = "text"

    def check(self, value: object) -> str:
        if not isinstance(value, str) or not value:
            raise ValueError(value)
        return value


class Name(Text):
    """A name that ends up in the broker's keys; braces would change what a cluster hashes."""

    wants = "a name without spaces, braces and control characters"

    def check(self, value: object) -> str:
        name = super().check(value)
        if not name.isprintable() or any(character.isspace() or character in "{}" for character in name):
            raise ValueError(value)
        return name


class Names(Rule[Iterable[str], tuple[str, ...]]):
    """Several names; in a variable they are separated by commas, and empty text is none."""

    wants = f"a list of texts, each {Name.wants}"

    def check(self, value: object) -> tuple[str, ...]:
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise ValueError(value)
        names: list[object] = list(value)  # pyright: ignore[reportUnknownArgumentType]: each is checked below
        rule = Name()
        return tuple(dict.fromkeys(rule.check(name) for name in names))

    def parse(self, text: str) -> tuple[str, ...]:
        return self.check([name.strip() for name in text.split(",")]) if text.strip() else ()


class Hosts(Rule[Iterable[str], tuple[str, ...]]):
    """Several servers, the first to be asked first; in a variable they are separated by commas."""

    wants = "a list of hosts, each 'host' or 'host:port'"

    def check(self, value: object) -> tuple[str, ...]:
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise ValueError(value)
        hosts: list[object] = list(value)  # pyright: ignore[reportUnknownArgumentType]: each is checked below
        return tuple(dict.fromkeys(self._host(host) for host in hosts))

    def parse(self, text: str) -> tuple[str, ...]:
        return self.check([host.strip() for host in text.split(",")]) if text.strip() else ()

    def _host(self, value: object) -> str:
        if not isinstance(value, str) or any(character.isspace() or character in "/@?#," for character in value):
            raise ValueError(value)
        parts = urlsplit(f"//{value}")
        if not parts.hostname or parts.port == 0:
            raise ValueError(value)
        return value


class AppName(Text):
    """Where the app is: a module and a name in it, or the module alone when the name is `app`."""

    wants = "'module:app', such as 'tasks:app'"

    def check(self, value: object) -> str:
        text = super().check(value)
        module, colon, name = text.partition(":")
        parts = [*module.split("."), *(name.split(".") if colon else ())]
        if not all(part.isidentifier() for part in parts):
            raise ValueError(value)
        return text


class Folder(Rule[str | Path, str]):
    """A directory, which need not exist yet; `~` is the home of whoever runs this."""

    wants = "the path of a directory"
    path = "directory"

    def check(self, value: object) -> str:
        path = str(value) if isinstance(value, Path) else value
        if not isinstance(path, str) or not path or "\0" in path:
            raise ValueError(value)
        return os.path.expanduser(path)


class File(Folder):
    """A file, which need not exist yet."""

    wants = "the path of a file"
    path = "file"


class Member(Rule[E | str, E]):
    """One of an enumeration, by itself or by its value."""

    def __init__(self, kind: type[E]) -> None:
        self.kind = kind
        self.wants = one_of(str(member.value) for member in kind)

    def check(self, value: object) -> E:
        return self.kind(value.lower() if isinstance(value, str) else value)


class Word(Rule[S, S]):
    """One of a few words, whatever the case they are written in."""

    def __init__(self, *words: S) -> None:
        self.words = words
        self.wants = one_of(words)

    def check(self, value: object) -> S:
        for word in self.words:
            if isinstance(value, str) and word.lower() == value.lower():
                return word
        raise ValueError(value)


class Secret(Rule[str | HasSecretValue, SecretStr]):
    """A password: plain text, our SecretStr, or another library's."""

    wants = "text"
    secret = True

    def check(self, value: object) -> SecretStr:
        if isinstance(value, SecretStr):
            return value
        if not isinstance(value, str | HasSecretValue):
            raise ValueError("not a text")  # the value stays out of the traceback
        return SecretStr(value)


class Url(Secret):
    """Where a server is, with its password."""

    SCHEMES: Sequence[str] = ()

    def check(self, value: object) -> SecretStr:
        url = super().check(value)
        if not self.usable(url.get_secret_value()):
            raise ValueError("not such a URL")  # which stays out of the traceback
        return url

    def usable(self, url: str) -> bool:
        """Whether *url* says where such a server is."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            return False
        return parts.scheme in self.SCHEMES and port != 0 and self.placed(parts)

    def placed(self, parts: SplitResult) -> bool:
        """Whether *parts* name a place, as far as the scheme wants one."""
        return bool(parts.hostname)


class RedisUrl(Url):
    """Where a Redis is, with its password."""

    wants = "a URL such as 'redis://user:password@host:6379/0', 'rediss://...' or 'unix:///path/redis.sock'"
    SCHEMES = ("redis", "rediss", "unix")

    def placed(self, parts: SplitResult) -> bool:
        """A socket is a path, a host is none."""
        return bool(parts.path) if parts.scheme == "unix" else super().placed(parts)


class RabbitMQUrl(Url):
    """Where a RabbitMQ is, with its password; a cluster has several hosts, with commas between them."""

    wants = "a URL such as 'amqp://user:password@host:5672/vhost', 'amqps://...' or 'amqp://host1,host2:5672/'"
    SCHEMES = ("amqp", "amqps")

    def usable(self, url: str) -> bool:
        """Whether each of its hosts is one."""
        try:
            return all(super(RabbitMQUrl, self).usable(one) for one in url_of_each_host(url))
        except ValueError:
            return False


def url_of_each_host(url: str) -> list[str]:
    """*url* once for each of its hosts, in their order; ValueError when it is none."""
    parts = urlsplit(url)
    userinfo, at, hosts = parts.netloc.rpartition("@")
    return [urlunsplit(parts._replace(netloc=f"{userinfo}{at}{host}")) for host in hosts.split(",")]


class SqlUrl(Url):
    """Where a database is, with its password."""

    wants = "a URL such as 'postgresql://user:password@host/database', 'mysql://...' or 'sqlite:///path/results.db'"
    # The drivers may be named too, as SQLAlchemy does; others than these are not spoken to.
    SCHEMES = (
        *("postgresql", "postgresql+psycopg", "mysql", "mysql+pymysql", "mariadb", "mariadb+pymysql"),
        *("sqlite", "sqlite+pysqlite"),
    )

    def placed(self, parts: SplitResult) -> bool:
        """A file, or a server that its driver knows to find.  SQLite in memory would be gone with its connection."""
        return not parts.scheme.startswith("sqlite") or (not parts.netloc and parts.path not in ("", "/", "/:memory:"))


class TablePrefix(Text):
    """Begins the names of tables, in every database the same."""

    wants = "a lower-case letter and at most 39 more, digits or underscores"

    def check(self, value: object) -> str:
        prefix = super().check(value)
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", prefix):
            raise ValueError(value)
        return prefix


def one_of(words: Iterable[str]) -> str:
    """`'a', 'b' or 'c'`."""
    *most, last = (repr(word) for word in words)
    return f"{', '.join(most)} or {last}" if most else last
