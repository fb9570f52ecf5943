"""What the link to Redis makes of addresses and of error replies."""

import subprocess
import sys
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chicory.errors import BrokerError, BrokerFull, BrokerRefused, BrokerUnavailable, ConfigError
from chicory.links.redis import Connection, ServerError, classify
from chicory.links.redis_address import Address, address_from_url
from chicory.links.redis_pool import parse_info, server_version
from chicory.secret import SecretStr


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ("LOADING Redis is loading the dataset in memory", BrokerUnavailable),
        ("READONLY You can't write against a read only replica.", BrokerUnavailable),
        ("MASTERDOWN Link with MASTER is down", BrokerUnavailable),
        ("CLUSTERDOWN The cluster is down", BrokerUnavailable),
        ("TRYAGAIN Multiple keys request during rehashing of slot", BrokerUnavailable),
        ("BUSY Redis is busy running a script", BrokerUnavailable),
        ("MISCONF Errors writing to the AOF file", BrokerUnavailable),
        ("ERR max number of clients reached", BrokerUnavailable),
        ("OOM command not allowed when used memory > 'maxmemory'.", BrokerFull),
        ("NOAUTH Authentication required.", BrokerRefused),
        ("WRONGPASS invalid username-password pair or user is disabled.", BrokerRefused),
        ("NOPERM User worker has no permissions to run the 'keys' command", BrokerRefused),
        ("ERR AUTH <password> called without any password configured", BrokerRefused),
        ("NOGROUP No such key 'a' or consumer group 'b'", ServerError),
        ("NOSCRIPT No matching script.", ServerError),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", ServerError),
    ],
)
def test_every_class_of_error_reply_has_its_error(reply, kind):
    error = classify(reply)

    assert type(error) is kind
    assert reply in str(error)


class Saying:
    """A stream whose other end says so much, whatever it is asked."""

    def __init__(self, words):
        self._words = words

    async def send_all(self, data):
        pass

    async def receive_some(self, size):
        return self._words

    def close(self):
        pass


@pytest.mark.parametrize(("state", "left"), [("READONLY it is a replica", True), ("LOADING it has just begun", False)])
async def test_a_server_that_became_a_replica_is_left_once_it_has_answered(state, left):
    connection = Connection(Saying(f"-{state}\r\n+PONG\r\n".encode()), address_from_url("redis://host"))

    refused, answer = await connection.pipeline([("SET", "a", "b"), ("PING",)], timeout=5)

    assert isinstance(refused, BrokerUnavailable)
    assert (answer, connection.closed) == (b"PONG", left)


@given(st.text())
def test_any_error_reply_becomes_a_broker_error(text):
    assert isinstance(classify(text), BrokerError)


def test_a_url_says_everything():
    address = address_from_url("redis://ann:secret@example.test:6390/3")

    assert (address.host, address.port, address.db, address.username) == ("example.test", 6390, 3, "ann")
    assert address.password is not None
    assert address.password.get_secret_value() == "secret"
    assert address.tls is None


def test_a_unix_url_names_a_path():
    address = address_from_url("unix:///run/redis.sock?db=2")

    assert (address.path, address.db) == ("/run/redis.sock", 2)
    assert str(address) == "unix:///run/redis.sock?db=2"


@given(
    st.sampled_from(["redis", "unix"]),
    st.none() | st.text(min_size=1, max_size=10),
    st.none() | st.text(min_size=1, max_size=10),
    st.integers(1, 65535),
    st.integers(0, 15),
)
def test_a_plain_url_is_read_as_redis_py_reads_it(scheme, username, password, port, db):
    from chicory.links.redis_address import _address_with_options, _plain_address

    credentials = f"{quote(username or '', safe='')}:{quote(password or '', safe='')}@" if username or password else ""
    url = f"redis://{credentials}host:{port}/{db}" if scheme == "redis" else f"unix://{credentials}/run/a%20b.sock"

    assert _plain_address(url) == _address_with_options(url)


def test_a_plain_url_needs_no_redis_py():
    code = """if True:
        import sys
        from chicory.links.redis_address import address_from_url
        address_from_url("redis://u:p@h:1/2")
        address_from_url("unix:///x")
        sys.exit("redis" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code], check=False)

    assert done.returncode == 0


def test_tls_is_verified_unless_the_url_says_otherwise():
    import ssl

    strict = address_from_url("rediss://example.test/0").tls
    loose = address_from_url("rediss://example.test/0?ssl_cert_reqs=none").tls

    assert strict is not None
    assert (strict.verify_mode, strict.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert strict.minimum_version is ssl.TLSVersion.TLSv1_2
    assert loose is not None
    assert loose.verify_mode is ssl.CERT_NONE


@pytest.mark.parametrize("url", ["http://ann:canary@x", "redis://ann:canary@host:notaport/0", "canary"])
def test_a_url_that_cannot_be_read_is_a_setting_to_mend_and_its_password_stays_out(url):
    with pytest.raises(ConfigError, match=r"write redis://") as caught:
        address_from_url(url)

    shown = [caught.value]
    while shown[-1].__cause__ is not None:
        shown.append(shown[-1].__cause__)
    assert not any("canary" in str(error) for error in shown if "@" in url)


def test_an_address_never_shows_its_password():
    address = Address(host="h", username="ann", password=SecretStr("canary"))

    assert "canary" not in str(address)
    assert "canary" not in repr(address)


def test_a_version_is_read_from_either_kind_of_server():
    assert server_version(parse_info(b"# Server\r\nredis_version:7.0.15\r\n")) == (7, 0, 15)
    assert server_version({"redis_version": "7.2.4", "valkey_version": "9.1.2"}) == (9, 1, 2)
    assert server_version({}) == (0,)
