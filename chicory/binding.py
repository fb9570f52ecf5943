"""Whether arguments fit a function's signature, cheaply enough to ask for every message.  Pure.

`inspect.Signature.bind` builds what it binds and costs microseconds; counts and names, taken once, answer the same
question.  `inspect` is asked only for the words of an error.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

from chicory.errors import ArgumentsError

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@final
class Shape:
    """What a function takes.  *skip* leading parameters are somebody else's to give."""

    __slots__ = ("_keywords", "_most", "_needed", "_needed_keywords", "_places", "_reserved", "_signature")

    def __init__(self, function: Callable[..., Any], *, skip: int = 0) -> None:
        whole = inspect.signature(function)
        parameters = list(whole.parameters.values())[skip:]
        self._signature = whole.replace(parameters=parameters)
        self._reserved = frozenset(list(whole.parameters)[:skip])
        positional = [parameter for parameter in parameters if parameter.kind in _POSITIONAL]
        keyword_only = [parameter for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
        kinds = {parameter.kind for parameter in parameters}
        self._needed = sum(parameter.default is inspect.Parameter.empty for parameter in positional)
        self._most = len(positional) if inspect.Parameter.VAR_POSITIONAL not in kinds else float("inf")
        # Where a keyword's value would go: its index among the positional ones, or -1.
        self._places = {
            p.name: index for index, p in enumerate(positional) if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        }
        self._places |= {parameter.name: -1 for parameter in keyword_only}
        self._needed_keywords = {p.name for p in keyword_only if p.default is inspect.Parameter.empty}
        self._keywords = inspect.Parameter.VAR_KEYWORD in kinds

    def fits(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Whether the function can be called so."""
        given = len(args)
        if given > self._most:
            return False
        if not kwargs:
            return given >= self._needed and not self._needed_keywords
        places = self._places
        for name in kwargs:
            place = places.get(name)
            if place is None:
                if not self._keywords or name in self._reserved:
                    return False
            elif 0 <= place < given:
                return False  # given twice
        if given < self._needed:
            named = sum(given <= places.get(name, -1) < self._needed for name in kwargs)
            if given + named < self._needed:
                return False
        return self._needed_keywords <= kwargs.keys()

    def check(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise ArgumentsError, saying what is wrong, unless the arguments fit."""
        if not self.fits(args, kwargs):
            raise ArgumentsError(self.complaint(name, args, kwargs))

    def complaint(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """What is wrong with arguments that do not fit."""
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            why = str(error)
        else:
            why = "the arguments do not fit"
        return f"{name}{self._signature}: {why}"
