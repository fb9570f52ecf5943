"""Exit codes, as sysexits.h numbers them, and which error means which."""

from chicory.errors import AppImportError, BrokerError, ChicoryError, ConfigError, UsageError

OK, USAGE, NO_INPUT, UNAVAILABLE, INTERNAL, BAD_CONFIG, INTERRUPTED = 0, 64, 66, 69, 70, 78, 130

# The nearest class decides.
_CODES: dict[type[ChicoryError], int] = {
    ConfigError: BAD_CONFIG,
    AppImportError: NO_INPUT,
    UsageError: USAGE,
    BrokerError: UNAVAILABLE,
}


def exit_code(error: BaseException) -> int:
    """The exit code for *error*."""
    return next((code for kind, code in _CODES.items() if isinstance(error, kind)), INTERNAL)
