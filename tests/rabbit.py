"""A private RabbitMQ node for tests, and what they do to it.

It takes seconds to start, so one serves a whole session, and every test takes a virtual host of its own.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import trustme

from examples.node import Node, NodeFailed, script
from tests.servers import free_port, missing

_vhosts = count(1)


class RabbitNode(Node):
    """One node, which speaks TLS too: to those who trust its authority and have a certificate of it themselves.

    ca, certificate, key: paths for a client.
    """

    def __init__(self, beside: Node | None = None) -> None:
        super().__init__(beside)
        self.tls_port = free_port()
        self.ca, self.certificate, self.key = (
            self.directory / f"{name}.pem" for name in ("ca", "client", "client-key")
        )
        server, server_key = self.directory / "server.pem", self.directory / "server-key.pem"
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca)
        for identity, path, key in (("127.0.0.1", server, server_key), ("worker", self.certificate, self.key)):
            issued = authority.issue_cert(identity)
            issued.cert_chain_pems[0].write_to_path(path)
            issued.private_key_pem.write_to_path(key)
        self.configure(
            f"listeners.ssl.default = 127.0.0.1:{self.tls_port}",
            f"ssl_options.cacertfile = {self.ca}",
            f"ssl_options.certfile = {server}",
            f"ssl_options.keyfile = {server_key}",
            "ssl_options.verify = verify_peer",
            "ssl_options.fail_if_no_peer_cert = true",
        )

    @property
    def address(self) -> tuple[str, int]:
        """What `tests.proxy` connects to."""
        return ("127.0.0.1", self.port)

    def restart(self) -> None:
        """Kill it and start it on the same address."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Have it stand still, with all its processes."""
        os.killpg(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """And go on."""
        os.killpg(self.pid, signal.SIGCONT)

    def vhost(self) -> str:
        """The name of a new virtual host."""
        name = f"t{next(_vhosts)}"
        self.evaluate(f'rabbit_vhost:add(<<"{name}">>, <<"tests">>).')
        self._permit("guest", name, ".*", ".*", ".*")
        return name

    def let_in(self, user: str, password: str, vhost: str, *patterns: str) -> None:
        """Let *user* configure, write and read what the three *patterns* match, and nothing else."""
        with contextlib.suppress(AssertionError):  # there already
            self.evaluate(f'rabbit_auth_backend_internal:add_user(<<"{user}">>, <<"{password}">>, <<"tests">>).')
        self._permit(user, vhost, *patterns)

    def _permit(self, user: str, vhost: str, *patterns: str) -> None:
        words = ", ".join(f'<<"{word}">>' for word in (user, vhost, *patterns, "tests")).replace("\\", "\\\\")
        self.evaluate(f"rabbit_auth_backend_internal:set_permissions({words}).")

    def await_no_connections(self, vhost: str) -> None:
        """Return when nobody is connected to *vhost* any more."""
        deadline = time.monotonic() + 10
        while self.evaluate(f'rabbit_connection_tracking:list(<<"{vhost}">>).') != "[]":
            assert time.monotonic() < deadline, "somebody is connected still"

    def close_all_connections(self) -> None:
        """What an operator does with `rabbitmqctl close_all_connections`."""
        closing = '[rabbit_networking:close_connection(P, "by an operator") || P <- rabbit_networking:connections()]'
        self.evaluate(f"{closing}, true.")

    def set_memory_limit(self, fraction: float) -> None:
        """The share of memory above which the node takes nothing more; 0 raises the alarm.  Returns when it is so."""
        self.evaluate(f"vm_memory_monitor:set_vm_memory_high_watermark({fraction}).")
        self._await_alarm(on=fraction == 0)

    def set_disk_limit(self, limit: int) -> None:
        """Bytes of free disk below which the node takes nothing more; 10**18 is an alarm.  Returns when it is so."""
        self.evaluate(f"rabbit_disk_monitor:set_disk_free_limit({limit}).")
        self._await_alarm(on=limit >= 10**18)

    def _await_alarm(self, *, on: bool) -> None:
        deadline = time.monotonic() + 30
        while (self.evaluate("rabbit_alarm:get_alarms().") != "[]") is not on:
            assert time.monotonic() < deadline, "the alarm is not as it should be"
            time.sleep(0.01)

    def stop_app(self) -> None:
        """What an operator does with `rabbitmqctl stop_app`: the broker ends, and its Erlang node stays."""
        self.evaluate("rabbit:stop(), true.")

    def start_app(self) -> None:
        """And with `rabbitmqctl start_app`."""
        self.evaluate("rabbit:start(), true.")

    def delete_queue(self, vhost: str, queue: str) -> None:
        """Delete a queue as an operator would, whatever is in it."""
        name = f'rabbit_misc:r(<<"{vhost}">>, queue, <<"{queue}">>)'
        self.evaluate(
            f'{{ok, Q}} = rabbit_amqqueue:lookup({name}), rabbit_amqqueue:delete(Q, false, false, <<"tests">>), true.'
        )


@contextmanager
def running_node() -> Iterator[RabbitNode]:
    """A node that lives as long as the block, started; the test is skipped where there is none."""
    try:
        script()
    except NodeFailed as why:
        missing(str(why))
    node = RabbitNode()
    try:
        node.start()
        yield node
    finally:
        node.remove()
