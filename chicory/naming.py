"""What functions and classes are called where another process must know them by their names."""

import inspect
import sys
from collections.abc import Callable
from typing import Any

_name: Callable[[type], str] = vars(type)["__name__"].__get__
_qualname: Callable[[type], str] = vars(type)["__qualname__"].__get__
_module: Callable[[type], object] = vars(type)["__module__"].__get__


def module_of(thing: Any) -> str:
    """The module that *thing* is defined in; a script that is run by itself is called as others would import it."""
    return _importable(thing.__module__)


def dotted(thing: Any) -> str:
    """`module.name` of a function or a class."""
    return f"{module_of(thing)}.{thing.__qualname__}"


def class_name(kind: type) -> str:
    """The name of *kind*, as its definition says; a metaclass may have other answers, or none."""
    return plain(_name(kind))


def class_qualname(kind: type) -> str:
    """The qualified name of *kind*, likewise."""
    return plain(_qualname(kind))


def class_module(kind: type) -> str:
    """The module of *kind*, likewise; empty where that is no text, or nothing."""
    try:
        module = _module(kind)
    except AttributeError:
        return ""
    return plain(module) if issubclass(type(module), str) else ""


def class_dotted(kind: type) -> str:
    """`dotted` of a class that is not to be trusted."""
    return f"{_importable(class_module(kind))}.{class_qualname(kind)}"


def plain(text: Any) -> str:
    """*text* without what a subclass of str may do in place of str."""
    return str.__str__(text)


def _importable(module: str) -> str:
    if module != "__main__":
        return module
    main = sys.modules[module]
    spec = getattr(main, "__spec__", None)
    file = getattr(main, "__file__", None)
    return spec.name if spec else (inspect.getmodulename(file) if file else None) or module
