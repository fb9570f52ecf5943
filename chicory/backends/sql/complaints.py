"""From SQLAlchemy's and the drivers' errors to Chicory's.  Pure."""

from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError

from chicory.errors import BrokerError, BrokerFull, BrokerRefused, BrokerUnavailable

# What another attempt meets again, until somebody mends it: classes of SQLSTATE (no authorisation, no such database,
# no privilege or table, a wrong statement), MySQL's numbers, and words where a driver gives no more than those.
_REFUSED_STATES = ("28", "3D", "42", "22", "0A")
_REFUSED_CODES = frozenset({1044, 1045, 1049, 1142, 1064, 1698})
_REFUSED_WORDS = (
    "password authentication failed",
    "no pg_hba.conf entry",
    "does not exist",
    "no password supplied",
    "unable to open database file",
    "readonly database",
    "file is not a database",
    "malformed",
)
_DEADLOCKS = ("40001", "40P01")
_DEADLOCK_CODES = frozenset({1213})
_FULL_STATES = ("53100", "53200")
_FULL_CODES = frozenset({1021, 1114})
_FULL_WORDS = ("database or disk is full",)


def complaint(error: Exception, where: str) -> BrokerError:
    """*error* as ours, on one line and without a statement or a value in it; *where* begins it."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    text = _first_line(cause)
    state = str(getattr(cause, "sqlstate", None) or "")
    code = _code(cause)
    if state in _FULL_STATES or code in _FULL_CODES or _any_in(_FULL_WORDS, text):
        return BrokerFull(f"{where}: {text}; make room")
    if state.startswith(_REFUSED_STATES) or code in _REFUSED_CODES or _any_in(_REFUSED_WORDS, text):
        return BrokerRefused(f"{where}: {text}")
    if isinstance(error, DBAPIError) and not isinstance(error, OperationalError | InterfaceError | InternalError):
        return BrokerRefused(f"{where}: {text}")
    return BrokerUnavailable(f"{where}: {text}")


def passing(error: Exception) -> bool:
    """Whether the same may succeed at once: an idle connection had died, or two transactions waited for each other."""
    if not isinstance(error, DBAPIError):
        return False
    deadlock = getattr(error.orig, "sqlstate", None) in _DEADLOCKS or _code(error.orig) in _DEADLOCK_CODES
    return deadlock or error.connection_invalidated


def _first_line(error: BaseException | None) -> str:
    # MySQL's errors are a number and a text.
    said = error.args[1] if error is not None and _code(error) is not None and len(error.args) > 1 else error
    lines = str(said).strip().splitlines() if error is not None and error.args else []
    return lines[0] if lines else type(error).__name__


def _code(error: BaseException | None) -> int | None:
    first = error.args[0] if error is not None and error.args else None
    return first if isinstance(first, int) else None


def _any_in(words: tuple[str, ...], text: str) -> bool:
    return any(word in text for word in words)
