"""Imports point down, foreign clients stay in `links`, and `import chicory` costs next to nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "chicory"

# From the bottom up; a room may import its own level and those below.  `config` stands for the whole package.
LEVELS = [
    {"ids", "secret"},
    {
        "errors",
        "groups",
        "types",
        "naming",
        "retry",
        "outcome",
        "delay",
        "wire",
        "binding",
        "carried",
        "clock",
        "config",
        "schedules",
        "unique",
        "validation",
    },
    {"embedded", "exits", "lifeline", "outage", "server"},
    {"brokers.base", "backends.base", "cancelled", "links"},
    {
        "batches",
        "callers",
        "conditions",
        "context",
        "lifespan",
        "middleware",
        "remote",
        "result",
        "gathering",
        "task",
        "drivers",
        "app",
        "loading",
        "process",
        "journal",
    },
    {
        "brokers.memory",
        "brokers.redis",
        "brokers.rabbitmq",
        "backends.memory",
        "backends.redis",
        "backends.rabbitmq",
        "backends.sql",
        "scheduler",
        "check",
    },
    # A worker in a process of its own has no scheduler in it, but `Worker(app).run()` has.
    {"worker"},
    {"cli", "testing", "pytest_plugin"},
]
# May be imported from above and from below alike, because it only names what is elsewhere.
NAMES = {""}
FOREIGN = {"redis", "hiredis", "pamqp", "aio_pika", "aiormq", "trio_asyncio", "asyncio"}
# What changes asyncio for a process, or brings it along, and the only modules that may.
AIO_PIKA = {"aio_pika", "aiormq", "trio_asyncio"}
ISLAND = {"links.amqp_asyncio", "links.amqp_asyncio_channel", "links.trio_loop"}
DATABASES = {"sqlalchemy", "psycopg", "pymysql"}


def room(module):
    """The room of a module's dotted name below chicory."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] in ("brokers", "backends") else parts[0]


def level(module):
    found = [number for number, rooms in enumerate(LEVELS) if room(module) in rooms]
    assert found, f"chicory.{module} has no level yet; say in LEVELS where it belongs"
    return found[0]


def found_modules():
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix("__init__").rstrip(".")
        yield pytest.param(name, path, id=name or "chicory")


MODULES = list(found_modules())


def imports(path, *, lazy):
    """Full names of what *path* imports: when it is imported itself, and (*lazy*) when its functions run."""

    def visit(node, inside):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import) and (lazy or not inside):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and (lazy or not inside):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module
        inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    yield from visit(ast.parse(path.read_text()), False)


@pytest.mark.parametrize(("name", "path"), MODULES)
def test_imports_point_down(name, path):
    if name in NAMES or name in ("brokers", "backends"):
        return
    for imported in imports(path, lazy=False):
        if imported.startswith("chicory."):
            lower = imported.removeprefix("chicory.")
            assert level(lower) <= level(name), f"chicory.{name} imports {imported}, which is above it"


@pytest.mark.parametrize(("name", "path"), MODULES)
def test_drivers_do_not_import_each_other(name, path):
    driver = room(name)
    if driver.count(".") != 1 or driver.endswith(".base"):
        return
    # The Redis backend and the Redis broker share keys: results are stored by the script that settles.  And results by
    # RabbitMQ are sent by its broker.
    family = driver.partition(".")[2]
    for imported in imports(path, lazy=True):
        other = room(imported.removeprefix("chicory."))
        if imported.startswith(("chicory.brokers.", "chicory.backends.")) and not other.endswith(".base"):
            assert other.partition(".")[2] == family, f"chicory.{name} imports {imported}"


@pytest.mark.parametrize(("name", "path"), MODULES)
def test_only_links_name_the_foreign_clients(name, path):
    if room(name) == "links":
        return
    found = {imported.partition(".")[0] for imported in imports(path, lazy=True)} & FOREIGN

    assert not found, f"chicory.{name} imports {', '.join(sorted(found))}"


@pytest.mark.parametrize(("name", "path"), MODULES)
def test_only_the_second_data_path_of_rabbitmq_names_aio_pika(name, path):
    if name in ISLAND:
        return
    named = list(imports(path, lazy=True))

    assert not {imported.partition(".")[0] for imported in named} & AIO_PIKA
    assert not {imported.removeprefix("chicory.") for imported in imports(path, lazy=False)} & ISLAND


@pytest.mark.parametrize(("name", "path"), MODULES)
def test_only_the_sql_backend_names_databases(name, path):
    if room(name) == "backends.sql":
        return
    found = {imported.partition(".")[0] for imported in imports(path, lazy=True)} & DATABASES

    assert not found, f"chicory.{name} imports {', '.join(sorted(found))}"


def imported_by(statement):
    code = f"import sys; {statement}; print(*sorted(sys.modules))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_importing_chicory_costs_next_to_nothing():
    cheap = imported_by("import chicory")

    assert not cheap & (FOREIGN | DATABASES | {"trio", "attrs", "msgspec", "click", "rich", "typed_settings"})


@pytest.mark.parametrize("statement", ["from chicory import *", "import chicory.cli", "import chicory.testing"])
def test_no_way_into_chicory_brings_a_foreign_client(statement):
    assert not imported_by(statement) & (FOREIGN | DATABASES) - {"asyncio"}


def test_rabbitmq_needs_no_asyncio():
    """So nobody's event loop changes for it."""
    brought = imported_by("import chicory.brokers.rabbitmq, chicory.backends.rabbitmq")

    assert brought & FOREIGN == {"pamqp"}


def test_who_has_no_cron_line_does_not_pay_for_one():
    declared = "from chicory import *; app = Chicory(); app.every(seconds=5)(lambda: None)"

    assert not imported_by(declared) & {"cronsim", "zoneinfo"}


def test_every_public_name_is_there():
    import chicory

    for name in chicory.__all__:
        assert getattr(chicory, name) is not None
    with pytest.raises(AttributeError):
        chicory.no_such_name  # noqa: B018
