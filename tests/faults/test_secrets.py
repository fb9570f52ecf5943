"""The broker's URL is a secret that comes in a file, as systemd's LoadCredential hands it over."""

from pathlib import Path

import pytest

from tests.faults.load import close_books, quick, send
from tests.faults.tree import Tree
from tests.servers import running_server

SECRET = "tr3acle-w3ll"


@pytest.fixture
def tree():
    with running_server(tcp=True, options=("--requirepass", SECRET)) as server:
        made = Tree(f"redis://:{SECRET}@127.0.0.1:{server.port}/0", redis={"url": None})
        yield made
        made.remove()


async def test_a_url_in_a_credential_is_used_and_shown_nowhere(tree):
    credential = tree.home / "credentials" / "redis-url"
    credential.parent.mkdir(mode=0o700)
    credential.write_text(f"{tree.url}\n")
    tree.variables["CHICORY_BROKER_REDIS_URL_FILE"] = str(credential)
    await tree.start().ready()
    async with tree.client() as app:
        await send(tree, app, quick(50))
        await close_books(tree, app)

    told = [tree.run(*words) for words in (["status"], ["status", "--json"], ["health", "--json"], ["dump"])]
    shown = [Path(f"/proc/{pid}/{name}").read_text() for pid in tree.left() for name in ("cmdline", "environ")]
    assert len(shown) >= 2 * 6, "chicoryd, template, scheduler and three workers"
    stopped = tree.run("stop", "--json")
    assert await tree.gone() == 0

    assert [answer.returncode for answer in (*told, stopped)] == [0] * 5
    assert tree.log()
    for text in (tree.log(), stopped.stdout, *shown, *(answer.stdout + answer.stderr for answer in told)):
        assert SECRET not in text
