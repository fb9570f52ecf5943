"""`module:app` is found, or it is said in one line why not."""

import sys
import textwrap

import pytest

from chicory.app import Chicory
from chicory.errors import AppImportError
from chicory.loading import import_app


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module into the current directory, which is not on the path yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != ""])
    before = set(sys.modules)

    def write(name, source):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def refused(where):
    with pytest.raises(AppImportError) as caught:
        import_app(where)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_app_is_found_in_the_current_directory(module):
    module("shop_tasks", "from chicory import Chicory\napp = Chicory()\nother = Chicory(name='other')")

    assert isinstance(import_app("shop_tasks:app"), Chicory)
    assert import_app("shop_tasks").name is None
    assert import_app("shop_tasks:other").name == "other"


def test_a_missing_module_is_said_with_the_nearest_one(module):
    module("shop_tasks", "")

    assert "there is no module 'shop_task'" in refused("shop_task:app")
    assert "did you mean 'shop_tasks'?" in refused("shop_task:app")


def test_a_missing_app_is_said_with_the_one_that_is_there(module):
    module("shop_tasks", "from chicory import Chicory\nqueue = Chicory()")

    assert refused("shop_tasks:app") == "shop_tasks has no 'app'; did you mean shop_tasks:queue?"


def test_something_else_than_an_app_is_said_to_be_what_it_is(module):
    module("shop_tasks", "app = {}")

    assert refused("shop_tasks:app") == "shop_tasks:app is a dict, not a Chicory."


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("def f(:\n", "SyntaxError"),
        ("\n\n1 / 0\n", "shop_tasks.py, line 3"),
        ("import no_such_thing_anywhere\n", "No module named 'no_such_thing_anywhere'"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        ("raise ValueError('two\\nlines')\n", "ValueError: two lines"),
    ],
)
def test_a_module_that_fails_is_said_with_the_line_that_did(module, source, told):
    module("shop_tasks", source)

    assert told in refused("shop_tasks:app")


@pytest.mark.parametrize("where", ["", ":", "tasks.py:app", "my tasks:app", "a/b:app", "tasks:app()"])
def test_what_names_no_app_is_told_how_to(where):
    assert "write module:app" in refused(where) or "there is no module" in refused(where)
