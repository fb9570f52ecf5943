"""The node that tests stand on keeps to itself."""

import os
import socket
from contextlib import suppress
from pathlib import Path

from tests.rabbit import running_node


def listening(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def alive(group):
    """The processes of *group* that are no zombies."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                yield stat.parent.name


def test_each_test_has_a_virtual_host_of_its_own(rabbit_node):
    assert rabbit_node.vhost() != rabbit_node.vhost()


def test_a_node_leaves_no_process_no_port_and_no_file_behind():
    with running_node() as node:
        ports = node.ports
        assert all(listening(port) for port in ports)
        group = os.getpgid(node.pid)

    assert not any(listening(port) for port in ports)
    assert not node.directory.exists()
    assert not list(alive(group))
