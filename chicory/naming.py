"""What functions and classes are called where another process must know them by their names."""

import inspect
import sys
from typing import Any


def module_of(thing: Any) -> str:
    """The module that *thing* is defined in; a script that is run by itself is called as others would import it."""
    module: str = thing.__module__
    if module != "__main__":
        return module
    main = sys.modules[module]
    spec = getattr(main, "__spec__", None)
    file = getattr(main, "__file__", None)
    return spec.name if spec else (inspect.getmodulename(file) if file else None) or module


def dotted(thing: Any) -> str:
    """`module.name` of a function or a class."""
    return f"{module_of(thing)}.{thing.__qualname__}"
