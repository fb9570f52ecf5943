"""What a task's type hints promise of its arguments and its result, read when first asked for."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

from chicory.errors import ResultInvalid, ValidationError
from chicory.types import ValidationMode
from chicory.validation.codec import ANY, NOTHING, Codec
from chicory.validation.hints import RESULT, codecs_of, readable
from chicory.validation.problems import Problem, problems

Arguments = tuple[Sequence[Any], dict[str, Any]]


@final
class Contract:
    """The contract of the task *name*.  *skip* leading parameters are somebody else's to give.

    Arguments and results that it gives out are JSON, and what the wire knows beside that: datetime, UUID, Decimal and
    bytes.

    inputs: whether arguments are held to it.
    reader: makes what was returned of what is stored; None when that is the same.
    """

    def __init__(self, name: str, function: Callable[..., Any], mode: ValidationMode, *, skip: int = 0) -> None:
        self.name = name
        # Asked for every message, so not found out every time.
        self.inputs = mode.inputs
        self.reader: Callable[[Any], Any] | None = self.returned if mode.outputs else None
        self._function = function
        self._skip = skip
        self._inputs: _Inputs | None = None
        self._result: Codec | None = None

    def prepare(self) -> None:
        """Read the hints now, as far as they matter."""
        _ = self.holds_inputs, self.holds_outputs

    @property
    def readable(self) -> bool:
        """Whether arguments can be held to it by now, and none of its hints names what is not defined yet."""
        return not self.inputs or readable(self._function, [parameter.name for parameter in self._parameters()])

    @property
    def holds_inputs(self) -> bool:
        """Whether it says anything of the arguments."""
        return self.inputs and self._arguments().says_something

    @property
    def holds_outputs(self) -> bool:
        """Whether it says anything of the result."""
        return self.reader is not None and self._returned() is not ANY

    def outgoing(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Arguments:
        """Arguments that fit the signature, as they travel; raises ValidationError when they would not arrive."""
        inputs = self._inputs or self._arguments()
        if inputs.travel_as_they_are(args, kwargs):
            return args, kwargs
        return inputs.convert(args, kwargs, _travel, self.name)

    def incoming(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Arguments:
        """Arguments as they have travelled, as the task is to have them; raises ValidationError."""
        inputs = self._inputs or self._arguments()
        if inputs.travel_as_they_are(args, kwargs):
            return args, kwargs
        return inputs.convert(args, kwargs, _arrive, self.name)

    def returning(self, value: Any) -> Any:
        """A result as it travels; raises ValidationError when it is not what the task promised."""
        codec = self._result or self._returned()
        try:
            return value if type(value) in codec.exact else _travel(codec, value)
        except Exception as error:
            raise ValidationError(self.name, list(problems(error, "result"))) from error

    def returned(self, raw: Any) -> Any:
        """A result that has travelled, as it was; raises ResultInvalid."""
        codec = self._result or self._returned()
        try:
            return codec.load(raw)
        except Exception as error:
            raise ResultInvalid(self.name, list(problems(error, "result"))) from error

    def _arguments(self) -> "_Inputs":
        if self._inputs is None:
            parameters = self._parameters()
            codecs = codecs_of(self._function, self.name, [parameter.name for parameter in parameters])
            self._inputs = _Inputs(parameters, codecs)
        return self._inputs

    def _parameters(self) -> list[inspect.Parameter]:
        return list(inspect.signature(self._function).parameters.values())[self._skip :]

    def _returned(self) -> Codec:
        if self._result is None:
            self._result = codecs_of(self._function, self.name, [RESULT])[RESULT]
        return self._result


class _Inputs:
    """The codecs of a function's parameters, by place and by name."""

    def __init__(self, parameters: Sequence[inspect.Parameter], codecs: Mapping[str, Codec]) -> None:
        kinds = inspect.Parameter
        self._places = [(p.name, codecs[p.name]) for p in parameters if p.kind in _PLACED]
        self._names = {p.name: codecs[p.name] for p in parameters if p.kind in _NAMED}
        self._rest = next(((p.name, codecs[p.name]) for p in parameters if p.kind is kinds.VAR_POSITIONAL), ("", ANY))
        self._others = next((codecs[p.name] for p in parameters if p.kind is kinds.VAR_KEYWORD), ANY)
        self.says_something = any(codec is not ANY for codec in codecs.values())
        self._exact_places = [None if codec is ANY else codec.exact for _, codec in self._places]
        self._exact_names = {name: None if codec is ANY else codec.exact for name, codec in self._names.items()}

    def travel_as_they_are(self, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
        """Whether nothing need be done: so it is, cheaply, for numbers and texts where they are asked for."""
        places = self._exact_places
        if len(args) > len(places):
            return False
        for value, exact in zip(args, places, strict=False):
            if exact is not None and type(value) not in exact:
                return False
        for name, value in kwargs.items() if kwargs else ():
            exact = self._exact_names.get(name, NOTHING)
            if exact is not None and type(value) not in exact:
                return False
        return True

    def convert(
        self, args: Sequence[Any], kwargs: dict[str, Any], how: Callable[[Codec, Any], Any], task: str
    ) -> Arguments:
        """All arguments, converted by *how*; raises ValidationError with every mistake in them."""
        found: list[Problem] = []

        def converted(codec: Codec, value: Any, path: str) -> Any:
            try:
                return how(codec, value)
            except Exception as error:
                found.extend(problems(error, path))

        places = zip(self._places_of(len(args)), args, strict=True)
        changed = [converted(codec, value, path) for (path, codec), value in places]
        named = {name: converted(self._names.get(name, self._others), kwargs[name], name) for name in kwargs}
        if found:
            raise ValidationError(task, found)
        return changed, named

    def _places_of(self, count: int) -> list[tuple[str, Codec]]:
        rest, codec = self._rest
        return self._places[:count] + [(f"{rest}[{index}]", codec) for index in range(count - len(self._places))]


_PLACED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _travel(codec: Codec, value: Any) -> Any:
    raw = codec.dump(value)
    # What cannot arrive is not sent.
    codec.load(raw)
    return raw


def _arrive(codec: Codec, raw: Any) -> Any:
    return codec.load(raw)
