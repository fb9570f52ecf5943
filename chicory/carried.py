"""Carried: context variables that a message brings along, so that they are in its runs what they were at the call.

A variable is known by the name that it was made with: the object is of one process, and its place in the code may
change.  Its value is a header of the message, as JSON; so every try has it, and every replay.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextvars import Context, ContextVar, copy_context
from typing import Any, Final, final

from chicory.errors import PayloadError, UsageError
from chicory.wire import MAX_HEADERS, check_name, pack_text, unpack_text

# Headers that begin so hold what is carried, and are nobody else's to set.
CARRIED: Final = "chicory-carried-"

_UNSET: Final = object()


@final
class Carried:
    """The context variables *carry*; raises UsageError when two of them have one name."""

    def __init__(self, carry: Iterable[ContextVar[Any]]) -> None:
        # By their headers.
        self._variables: dict[str, ContextVar[Any]] = {}
        for variable in _checked(carry):
            header = CARRIED + variable.name
            if header in self._variables:
                raise UsageError(
                    f"carry= has two context variables named {variable.name!r}, and on its way a name is all there is"
                    " of one; make one of them with another name"
                )
            self._variables[header] = variable

    def headers(self, over: Mapping[str, str]) -> dict[str, str]:
        """*over*, with what the variables are now in place of what it says of them; one that is unset is left out.

        Raises PayloadError, which names the variable, when a value cannot travel.
        """
        headers = {name: text for name, text in over.items() if name not in self._variables}
        for header, variable in self._variables.items():
            value = variable.get(_UNSET)
            if value is not _UNSET:
                headers[header] = _text(variable, value)
        return headers

    def set(self, headers: Mapping[str, str]) -> None:
        """Set the variables, in the present context, to what *headers* say; those of other apps are ignored.

        Raises PayloadError, which names the variable, when that is no value.
        """
        for header, variable in self._variables.items():
            if (text := headers.get(header)) is not None:
                variable.set(unpack_text(text, _told(variable)))

    def __contains__(self, variable: object) -> bool:
        return variable in self._variables.values()


def run_context(carried: Carried | None) -> Context:
    """What a run begins with: a copy of the present context in which nothing that is *carried* is set."""
    present = copy_context()
    if carried is None:
        return present
    context = Context()
    for variable, value in present.items():
        if variable not in carried:
            context.run(variable.set, value)
    return context


def apart(headers: Mapping[str, str]) -> dict[str, str]:
    """*headers* without what is carried in them."""
    return {name: text for name, text in headers.items() if not name.startswith(CARRIED)}


def _checked(carry: Iterable[object]) -> Iterator[ContextVar[Any]]:
    if not isinstance(carry, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError(f"carry= takes a list of context variables, carry=[tenant], not {carry!r}")
    for variable in carry:
        if not isinstance(variable, ContextVar):
            raise UsageError(f"carry= takes a list of context variables, carry=[tenant], and {variable!r} is none")
        try:
            check_name(variable.name)
        except PayloadError:
            raise UsageError(
                f"the name of context variable {variable.name[:80]!r} must be letters, digits, '_', '.', ':' or '-',"
                " at most 200, to be carried; make it with another name"
            ) from None
        yield variable


def _text(variable: ContextVar[Any], value: object) -> str:
    text = pack_text(value, _told(variable))
    if len(text) > MAX_HEADERS:
        raise PayloadError(
            f"{_told(variable)}: {len(text)} characters, and all headers may have {MAX_HEADERS}; carry an id,"
            " and keep large values in the arguments"
        )
    return text


def _told(variable: ContextVar[Any]) -> str:
    return f"carried context variable {variable.name!r}"
