"""A password that is never shown by accident."""

from typing import NoReturn, Protocol, final, runtime_checkable

__all__ = ["HasSecretValue", "SecretStr"]

MASK = "**********"


@runtime_checkable
class HasSecretValue(Protocol):
    """Another library's secret string; pydantic's is one."""

    def get_secret_value(self) -> str:
        """The text itself."""
        ...


@final
class SecretStr:
    """Text that only `get_secret_value()` gives away; repr, str, format, pickle and JSON never do.

    Made from a string, or from anything that has `get_secret_value()` itself.
    """

    __slots__ = ("_value",)

    def __init__(self, value: "str | HasSecretValue") -> None:
        text = value.get_secret_value() if isinstance(value, HasSecretValue) else value
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]: called by those who do not check types
            raise TypeError(f"a secret is made from a string, not from {type(text).__name__}")
        self._value = text

    def get_secret_value(self) -> str:
        """The text itself."""
        return self._value

    def __repr__(self) -> str:
        return f"SecretStr({MASK!r})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return self._value == other._value if isinstance(other, SecretStr) else NotImplemented

    def __hash__(self) -> int:
        return hash((SecretStr, self._value))

    # Immutable, so a copy is itself; without these two, copying would go the way of pickle and be refused.
    def __copy__(self) -> "SecretStr":
        return self

    def __deepcopy__(self, memo: object) -> "SecretStr":
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        # Refused instead of masked: a mask unpickled elsewhere would be tried as the password.
        raise TypeError("a SecretStr is not pickled; let the other process read the setting for itself")
