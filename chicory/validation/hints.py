"""The type hints of a function, each by itself: one that cannot be read does not take the others along."""

import inspect
import logging
from collections.abc import Callable
from typing import Any, get_type_hints

from chicory.validation.build import codec
from chicory.validation.codec import ANY, Codec

log = logging.getLogger("chicory.validation")

RESULT = "return"


def codecs_of(function: Callable[..., Any], task: str, names: list[str]) -> dict[str, Codec]:
    """The codec of each of the parameters *names*, and of RESULT when it is among them.

    A hint that cannot be read, because its names are imported for type checkers only, or that values cannot be held
    to, is as good as none, and the log says so.
    """
    annotations, known = _annotations(function), _known(function)
    return {name: _codec(annotations[name], known, task, name) for name in names}


def readable(function: Callable[..., Any], names: list[str]) -> bool:
    """Whether the hints of the parameters *names* can be read by now: while a module is imported, what they name may
    be defined further down.
    """
    annotations, known = _annotations(function), _known(function)
    try:
        for name in names:
            _read(annotations[name], known)
    # Any: reading a hint runs code of the user's.
    except Exception:
        return False
    return True


def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    signature = inspect.signature(function)
    return {name: one.annotation for name, one in signature.parameters.items()} | {RESULT: signature.return_annotation}


def _known(function: Callable[..., Any]) -> dict[str, Any]:
    return getattr(inspect.unwrap(function), "__globals__", {})


def _codec(annotation: Any, known: dict[str, Any], task: str, name: str) -> Codec:
    if annotation is inspect.Signature.empty:
        return ANY
    try:
        return codec(_read(annotation, known))
    # Any: reading a hint runs code of the user's.
    except Exception as error:
        what = "result" if name == RESULT else f"argument {name!r}"
        log.warning("%s: the %s is not validated: %s", task, what, error)
        return ANY


def _read(annotation: Any, known: dict[str, Any]) -> Any:
    """*annotation* with every str in it read, itself or inside of what it is."""

    def holder() -> None: ...

    holder.__annotations__ = {"hint": annotation}
    return get_type_hints(holder, known)["hint"]
