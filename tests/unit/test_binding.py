"""Whether arguments fit: the quick answer is the one that calling the function gives."""

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chicory.binding import Shape
from chicory.errors import ArgumentsError

NAMES = ["a", "b", "c", "d", "e", "f"]


@st.composite
def functions(draw):
    names = iter(NAMES)
    parts = []
    defaults = False

    def positional(count):
        nonlocal defaults
        for _ in range(count):
            defaults = defaults or draw(st.booleans())
            parts.append(next(names) + ("=0" if defaults else ""))

    only = draw(st.integers(0, 2))
    positional(only)
    if only:
        parts.append("/")
    positional(draw(st.integers(0, 2)))
    keyword_only = draw(st.integers(0, 2))
    if draw(st.booleans()):
        parts.append("*args")
    elif keyword_only:
        parts.append("*")
    parts.extend(next(names) + draw(st.sampled_from(["", "=0"])) for _ in range(keyword_only))
    if draw(st.booleans()):
        parts.append("**kwargs")
    namespace = {}
    exec(f"def function({', '.join(parts)}): pass", namespace)
    return namespace["function"]


# The oracle is the call itself: `Signature.bind` of Python 3.11 and 3.12 refuses a positional-only name that **kwargs
# would take (gh-107831), and calling does not.
@given(functions(), st.integers(0, 5), st.sets(st.sampled_from([*NAMES, "z"])))
def test_arguments_fit_exactly_when_the_function_can_be_called_with_them(function, count, names):
    args, kwargs = [0] * count, dict.fromkeys(names, 0)
    try:
        function(*args, **kwargs)
        callable_so = True
    except TypeError:
        callable_so = False

    assert Shape(function).fits(args, kwargs) is callable_so


@given(functions(), st.integers(0, 5), st.sets(st.sampled_from([*NAMES, "z"])))
def test_arguments_that_do_not_fit_are_complained_of_in_one_line(function, count, names):
    args, kwargs = [0] * count, dict.fromkeys(names, 0)
    shape = Shape(function)
    if shape.fits(args, kwargs):
        shape.check("task", args, kwargs)
        return

    with pytest.raises(ArgumentsError) as caught:
        shape.check("task", args, kwargs)

    assert str(caught.value).startswith(f"task{inspect.signature(function)}: ")
    assert "\n" not in str(caught.value)


def test_a_skipped_parameter_is_nobody_elses_to_give():
    shape = Shape(lambda context, x, **rest: None, skip=1)

    assert shape.fits([1], {})
    assert shape.fits([], {"x": 1, "y": 2})
    assert not shape.fits([1, 2], {})
    assert not shape.fits([1], {"context": 2})
