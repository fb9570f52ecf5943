"""Finds the app that a command line or a setting names as `module:app`."""

import importlib
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType

from chicory.app import Chicory
from chicory.errors import AppImportError, did_you_mean


def import_app(where: str) -> Chicory:
    """The app at *where*: `module:app`, or `module` when the app is called app.

    The current directory is searched first.  Raises AppImportError, in one line, with the nearest names.
    """
    module_name, _, name = where.partition(":")
    name = name or "app"
    if not all(part.isidentifier() for part in [*module_name.split("."), *name.split(".")]):
        near = module_name.replace("/", ".").removesuffix(".py")
        raise AppImportError(f"{where!r} does not name an app; write module:app, like {near or 'tasks'}:{name}")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    module = _import(module_name, where)
    value: object = module
    for part in name.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            near = _apps_in(module) or did_you_mean(part, vars(module))
            raise AppImportError(f"{module_name} has no {part!r}{near}") from None
    if not isinstance(value, Chicory):
        raise AppImportError(f"{where} is a {type(value).__name__}, not a Chicory{_apps_in(module) or '.'}")
    return value


def _import(name: str, where: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(f"{missing}."):
            beside = [path.stem for path in Path.cwd().glob("*.py")] + [
                path.name for path in Path.cwd().iterdir() if (path / "__init__.py").exists()
            ]
            raise AppImportError(
                f"cannot import {where}: there is no module {missing!r} in {Path.cwd()} or on the Python path"
                f"{did_you_mean(missing, beside)}"
            ) from error
        raise AppImportError(f"cannot import {where}: {_last_line(error, name)}") from error
    except (Exception, SystemExit) as error:
        raise AppImportError(f"cannot import {where}: {_last_line(error, name)}") from error


def _last_line(error: BaseException, name: str) -> str:
    """What went wrong in the user's module and in which line, on one line."""
    told = traceback.TracebackException.from_exception(error)
    what = " ".join(list(told.format_exception_only())[-1].split())
    if isinstance(error, SyntaxError):
        return f"{what} ({error.filename}, line {error.lineno})"
    # Chicory's own lines too: what it refuses is written in the user's.
    ours = (f"{Path(__file__).parent}{os.sep}", "<attrs generated methods chicory.")
    machinery = ("<frozen importlib", importlib.__file__, *ours)
    own = [frame for frame in told.stack if not frame.filename.startswith(machinery)]
    return f"{what} ({own[-1].filename}, line {own[-1].lineno})" if own else f"{what} (in {name})"


def _apps_in(module: ModuleType) -> str:
    apps = [name for name, value in vars(module).items() if isinstance(value, Chicory)]
    return f"; did you mean {module.__name__}:{apps[0]}?" if apps else ""
