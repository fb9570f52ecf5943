"""Settings: what is allowed, which layer wins, and what is said when something is wrong."""

import os
import re
import subprocess
import sys
import textwrap
import tomllib
import traceback
from enum import Enum
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chicory.config import (
    BackendConfig,
    BrokerConfig,
    ChicoryConfig,
    RabbitMQBrokerConfig,
    RedisBackendConfig,
    RedisBrokerConfig,
    SecretStr,
    SqlBackendConfig,
    SupervisorConfig,
    WorkerConfig,
    evolve,
    load_config,
    load_with_origins,
)
from chicory.config.loading import examine
from chicory.config.options import options, sections, variable
from chicory.config.section import origins_of
from chicory.config.toml_lines import key_lines
from chicory.errors import ConfigError
from chicory.types import BackendType, BrokerType

ROOT = Path(__file__).parents[2]


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "chicory.toml") -> Path:
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return path

    return write


# What may be said in code


def test_the_documented_settings_are_taken_as_documented():
    config = ChicoryConfig(
        broker=BrokerConfig(
            redis=RedisBrokerConfig(
                host="localhost",
                port=6379,
                db=0,
                username="myuser",
                password=SecretStr("mypassword"),
                url="redis://user:pass@localhost:6379/0",
                consumer_group="chicory-workers",
                block_ms=5000,
                claim_min_idle_ms=30000,
                max_stream_length=100000,
                dlq_max_length=10000,
                key_prefix="chicory",
            )
        ),
        worker=WorkerConfig(use_dead_letter_queue=True),
    )

    assert config.broker.redis.url == SecretStr("redis://user:pass@localhost:6379/0")
    assert config.broker.redis.max_stream_length == 100000
    assert config.broker.type is BrokerType.EMBEDDED


def test_settings_are_frozen():
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        WorkerConfig().concurrency = 3


def test_the_types_that_are_written_most_easily_are_taken(tmp_path):
    assert BrokerConfig(type="redis").type is BrokerType.REDIS
    assert BrokerConfig(state_dir=tmp_path).state_dir == str(tmp_path)
    assert WorkerConfig(queues=["a", "b", "a"]).queues == ("a", "b")
    assert WorkerConfig(log_level="debug").log_level == "DEBUG"
    assert WorkerConfig(shutdown_timeout=3).shutdown_timeout == 3.0


def test_queues_replace_queue():
    assert WorkerConfig(queue="a").consumed == ("a",)
    assert WorkerConfig(queue="a", queues=["b", "c"]).consumed == ("b", "c")


@pytest.mark.parametrize(
    ("make", "wrong", "message"),
    [
        (RedisBrokerConfig, {"port": 0}, "broker.redis.port = 0: must be a whole number from 1 to 65535"),
        (RedisBrokerConfig, {"port": 65536}, "from 1 to 65535"),
        (RedisBrokerConfig, {"port": "6379"}, "broker.redis.port = '6379': must be a whole number"),
        (RedisBrokerConfig, {"port": True}, "broker.redis.port = True"),
        (RedisBrokerConfig, {"db": -1}, "0 or more"),
        (RedisBrokerConfig, {"host": ""}, "broker.redis.host = '': must be text"),
        (RedisBrokerConfig, {"key_prefix": "a b"}, "without spaces"),
        (RedisBrokerConfig, {"key_prefix": "{a}"}, "braces"),
        (RedisBrokerConfig, {"block_ms": 0}, "1 or more"),
        (RedisBrokerConfig, {"max_stream_length": 0}, "1 or more"),
        (RedisBrokerConfig, {"cluster": 1}, "true or false"),
        (RedisBrokerConfig, {"password": 5}, "broker.redis.password = '**********': must be text"),
        (RedisBrokerConfig, {"connect_timeout": 0}, "more than 0"),
        (WorkerConfig, {"concurrency": 0}, "worker.concurrency = 0"),
        (WorkerConfig, {"concurrency": 3.5}, "worker.concurrency = 3.5"),
        (WorkerConfig, {"prefetch": -1}, "0"),
        (WorkerConfig, {"shutdown_timeout": -1}, "0 or more"),
        (WorkerConfig, {"shutdown_timeout": float("nan")}, "worker.shutdown_timeout = nan"),
        (WorkerConfig, {"shutdown_timeout": float("inf")}, "worker.shutdown_timeout = inf"),
        (WorkerConfig, {"log_level": "LOUD"}, "'DEBUG', 'INFO', 'WARNING', 'ERROR' or 'CRITICAL'"),
        (WorkerConfig, {"on_lease_loss": "panic"}, "'cancel' or 'finish'"),
        (WorkerConfig, {"queues": "high"}, "a list of texts"),
        (WorkerConfig, {"queues": ["a", 1]}, "worker.queues"),
        (WorkerConfig, {"max_deliveries": 0}, "1 or more"),
        (BrokerConfig, {"type": "kafka"}, "'embedded', 'redis', 'rabbitmq' or 'memory'"),
        (RabbitMQBrokerConfig, {"hosts": "one,two"}, "a list of hosts, each 'host' or 'host:port'"),
        (RabbitMQBrokerConfig, {"hosts": ["one", "user@two"]}, "a list of hosts"),
        (RabbitMQBrokerConfig, {"hosts": ["one:0"]}, "a list of hosts"),
        (RabbitMQBrokerConfig, {"url": "amqp://one:5672,two:port/"}, "amqp://host1,host2:5672/"),
        (RabbitMQBrokerConfig, {"max_message_size": "1MiB"}, "a size such as 64KiB, at most 262144"),
        (BrokerConfig, {"redis": {"host": "x"}}, "broker.redis: must be a RedisBrokerConfig, not dict"),
        (ChicoryConfig, {"app": "tasks/app.py"}, "'module:app'"),
        (SupervisorConfig, {"workers": 0}, "supervisor.workers = 0"),
        (SupervisorConfig, {"memory_soft": "1 GB"}, "a size such as 512MiB"),
        (SupervisorConfig, {"jitter": 1.5}, "a number from 0 to 1"),
        (RedisBackendConfig, {"result_ttl": 0}, "backend.redis.result_ttl = 0"),
        (SqlBackendConfig, {"pool_size": 0}, "backend.sql.pool_size = 0"),
        (SqlBackendConfig, {"table_prefix": "My-App"}, "a lower-case letter"),
        (SqlBackendConfig, {"table_prefix": "x" * 41}, "at most 39 more"),
        (WorkerConfig, {"concurency": 3}, "WorkerConfig has no setting 'concurency'; did you mean 'concurrency'?"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line_that_names_it(make, wrong, message):
    with pytest.raises(ConfigError) as refused:
        make(**wrong)

    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://:p@h:6380/2",
        "rediss://u:p@h/0?ssl_cert_reqs=none",
        "unix:///run/r.sock?db=1",
        "redis://[::1]:1",
    ],
)
def test_urls_of_redis_are_taken(url):
    assert RedisBrokerConfig(url=url).url == SecretStr(url)


@pytest.mark.parametrize("url", ["http://u:canary@h", "canary", "redis://", "redis://h:canary", "unix:", "redis://h:0"])
def test_a_wrong_url_is_refused_and_not_shown(url):
    with pytest.raises(ConfigError) as refused:
        RedisBrokerConfig(url=url)

    assert "canary" not in "".join(traceback.format_exception(refused.value))
    assert "must be a URL" in str(refused.value)
    assert refused.value.__cause__ is refused.value.__context__ is None


def test_a_url_in_the_wrong_setting_does_not_show_its_password():
    with pytest.raises(ConfigError) as refused:
        BrokerConfig(type="redis://user:canary@host")

    assert "canary" not in str(refused.value)


# The heartbeat and the lease


def test_a_heartbeat_must_fit_three_times_into_the_lease_and_its_own_time_to_live():
    lease = BrokerConfig(redis=RedisBrokerConfig(claim_min_idle_ms=9000))

    assert ChicoryConfig(broker=lease, worker=WorkerConfig(heartbeat_interval=3)).worker.heartbeat_interval == 3
    with pytest.raises(ConfigError, match=r"heartbeat_interval = 3\.1: must be at most 3 seconds, a third of broker"):
        ChicoryConfig(broker=lease, worker=WorkerConfig(heartbeat_interval=3.1))
    with pytest.raises(ConfigError, match=r"a third of worker\.heartbeat_ttl"):
        ChicoryConfig(worker=WorkerConfig(heartbeat_interval=3, heartbeat_ttl=6))


def test_a_heartbeat_nobody_chose_follows_a_short_lease():
    broker = BrokerConfig(redis=RedisBrokerConfig(claim_min_idle_ms=1200))
    config = ChicoryConfig(broker=broker)

    assert config.worker.heartbeat_interval == 0.2
    assert load_config(code=config, environ={}).worker.heartbeat_interval == 0.2
    assert load_with_origins(code=config, environ={})[1]["worker.heartbeat_interval"] == "default"


# Which backend


def test_the_backend_goes_with_the_broker_unless_it_is_said_otherwise():
    def chosen(**broker):
        return ChicoryConfig(broker=BrokerConfig(**broker)).chosen_backend

    assert chosen().type is BackendType.EMBEDDED
    assert chosen(type="memory").type is BackendType.MEMORY
    assert chosen(type="rabbitmq").type is BackendType.NONE
    redis = chosen(type="redis", redis=RedisBrokerConfig(host="h", port=1, password="p", key_prefix="x"))
    assert (redis.type, redis.redis.host, redis.redis.port) == (BackendType.REDIS, "h", 1)
    assert (redis.redis.password, redis.redis.key_prefix) == (SecretStr("p"), "x")


def test_a_backend_with_a_connection_of_its_own_borrows_nothing_of_it():
    broker = BrokerConfig(type="redis", redis=RedisBrokerConfig(host="h", password="p"))
    backend = BackendConfig(redis=RedisBackendConfig(port=6379))

    chosen = ChicoryConfig(broker=broker, backend=backend).chosen_backend

    assert (chosen.redis.host, chosen.redis.password) == ("localhost", None)


def test_a_database_that_is_named_is_the_backend_unless_it_is_said_otherwise():
    sql = SqlBackendConfig(url="postgresql://u:p@h/results")

    assert ChicoryConfig(backend=BackendConfig(sql=sql)).chosen_backend.type is BackendType.SQL
    assert ChicoryConfig(backend=BackendConfig(sql=sql, type="redis")).chosen_backend.type is BackendType.REDIS


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://h/results",
        "postgresql+psycopg://u:p@h:5433/results?sslmode=require",
        "postgresql:///results?host=/var/run/postgresql",
        "mysql://u:p@h/results",
        "mariadb+pymysql://h/results",
        "sqlite:///results.db",
        "sqlite:////var/lib/chicory/results.db",
    ],
)
def test_a_url_of_a_database_is_taken(url):
    assert SqlBackendConfig(url=url).url == SecretStr(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:canary@h",
        "postgres://u:canary@h/results",
        "postgresql+psycopg2://u:canary@h/results",
        "postgresql://u:canary@h:99999/results",
        "oracle://u:canary@h/results",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite://results.db/canary",
        "results.db",
        "",
    ],
)
def test_another_url_is_refused_and_not_shown(url):
    with pytest.raises(ConfigError) as refused:
        SqlBackendConfig(url=url)

    assert "backend.sql.url = '**********': must be a URL such as 'postgresql://" in str(refused.value)
    assert "canary" not in repr(refused.value)


# The layers


def test_each_layer_wins_over_those_below_it(write):
    path = write("[worker]\nconcurrency = 2\nprefetch = 2\nqueue = 'file'\nmax_deliveries = 2\n")
    environ = {variable(f"worker.{key}"): "3" for key in ("prefetch", "queue", "max_deliveries")}
    code = ChicoryConfig(worker=WorkerConfig(queue="code", max_deliveries=4))

    config, origins = load_with_origins(path, code=code, environ=environ, flags={"worker.max_deliveries": 5})

    worker = config.worker
    assert (worker.concurrency, worker.prefetch, worker.queue, worker.max_deliveries) == (2, 3, "code", 5)
    assert worker.cancel_grace == 5.0
    assert origins["worker.concurrency"] == f"file {path}:2"
    assert origins["worker.prefetch"] == "env CHICORY_WORKER_PREFETCH"
    assert origins["worker.queue"] == "code"
    assert origins["worker.max_deliveries"] == "flag"
    assert origins["worker.cancel_grace"] == "default"


@given(chosen=st.sets(st.sampled_from(["env", "code", "flag"])))
def test_the_uppermost_layer_that_says_anything_wins(chosen):
    code = ChicoryConfig(worker=WorkerConfig(concurrency=32)) if "code" in chosen else ChicoryConfig()
    environ = {"CHICORY_WORKER_CONCURRENCY": "3"} if "env" in chosen else {}
    flags = {"worker.concurrency": 4 if "flag" in chosen else None}

    concurrency = load_config(code=code, environ=environ, flags=flags).worker.concurrency

    expected = 4 if "flag" in chosen else 32 if "code" in chosen else 3 if "env" in chosen else 32
    assert concurrency == expected


def test_code_that_says_the_default_wins_over_the_environment_and_code_that_is_silent_does_not():
    environ = {"CHICORY_BROKER_REDIS_HOST": "env", "CHICORY_BROKER_REDIS_PORT": "7777"}
    code = ChicoryConfig(broker=BrokerConfig(redis=RedisBrokerConfig(host="localhost")))

    redis = load_config(code=code, environ=environ).broker.redis

    assert (redis.host, redis.port) == ("localhost", 7777)


def test_evolving_says_only_what_was_changed():
    code = evolve(ChicoryConfig(), broker=evolve(BrokerConfig(), type=BrokerType.REDIS))

    config = load_config(code=code, environ={"CHICORY_BROKER_TYPE": "memory", "CHICORY_BROKER_REDIS_HOST": "env"})

    assert config.broker.type is BrokerType.REDIS
    assert config.broker.redis.host == "env"
    assert origins_of(code.broker) == {"type": "code"}


def test_what_was_loaded_may_be_loaded_again(write):
    path = write("[worker]\nprefetch = 2\n")
    environ = {"CHICORY_WORKER_QUEUE": "env"}

    once = load_with_origins(path, code=ChicoryConfig(app="tasks:app"), environ=environ)
    twice = load_with_origins(code=once[0], environ={})

    assert twice == once


# The file


def test_every_setting_can_be_given_in_the_file_and_in_the_environment(write, tmp_path):
    values = {key: other_than_default(option) for key, option in options().items()}
    tables = {"": [], **{section: [f"[{section}]"] for section in sections()}}
    for key, value in values.items():
        tables[key.rpartition(".")[0]].append(f"{key.rpartition('.')[2]} = {toml(value)}")
    path = write("\n".join(line for lines in tables.values() for line in lines))
    environ = {variable(key): text(value) for key, value in values.items()}

    from_file, file_origins = load_with_origins(path, environ={})
    from_environment, environment_origins = load_with_origins(environ=environ)

    assert from_file == from_environment
    assert all(origin.startswith(f"file {path}:") for origin in file_origins.values())
    assert environment_origins == {key: f"env {variable(key)}" for key in values}


def test_relative_directories_begin_at_the_file(write, tmp_path, monkeypatch):
    path = write("[broker]\nstate_dir = 'state'\n")
    monkeypatch.chdir("/")

    config = load_config(path, environ={"CHICORY_SUPERVISOR_STATE_DIR": "here"})

    assert config.broker.state_dir == str(tmp_path / "state")
    assert config.supervisor.state_dir == "/here"


@pytest.mark.parametrize("variable", [{}, {"CHICORY_LOG_FILE": "logs/chicory.log"}])
def test_the_log_lies_beside_the_file_whoever_names_it(write, tmp_path, monkeypatch, variable):
    path = write("" if variable else "[log]\nfile = 'logs/chicory.log'\n")
    monkeypatch.chdir("/")

    assert load_config(path, environ=variable).log.file == str(tmp_path / "logs/chicory.log")
    assert load_config(path, environ={"CHICORY_LOG_FILE": ""}).log.file is None


def test_a_tilde_is_the_home_directory(write, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")

    assert (
        load_config(write("[broker]\nstate_dir = '~/state'\n"), environ={}).broker.state_dir == "/home/somebody/state"
    )


def test_the_state_is_kept_beside_the_file_or_else_in_the_current_directory(write, tmp_path, monkeypatch):
    path = write("")
    monkeypatch.chdir("/")

    with_file = load_config(path, environ={})

    assert with_file.broker.state_dir == str(tmp_path / ".chicory")
    assert load_config(environ={}).broker.state_dir == "/.chicory"
    assert load_config(code=with_file, environ={}).broker.state_dir == str(tmp_path / ".chicory")


def test_the_daemon_keeps_its_state_where_the_broker_does_unless_it_is_said_otherwise(write, tmp_path):
    path = write("[broker]\nstate_dir = 'state'\n")

    assert load_config(path, environ={}).supervisor.state_dir == str(tmp_path / "state")
    assert load_config(path, environ={"CHICORY_SUPERVISOR_STATE_DIR": "/own"}).supervisor.state_dir == "/own"


def test_the_environment_names_the_file(write):
    path = write("[worker]\nprefetch = 2\n")

    assert load_config(environ={"CHICORY_CONFIG": str(path)}).worker.prefetch == 2
    assert load_config(environ={"CHICORY_CONFIG": ""}).worker.prefetch == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[worker]\n\nconcurency = 3",
            "3: no setting is called 'worker.concurency'; did you mean 'worker.concurrency'?",
        ),
        ("concurrency = 3", "1: no setting is called 'concurrency'; did you mean 'worker.concurrency'?"),
        ("[wroker]\nprefetch = 1", "1: no table is called 'wroker'; did you mean 'worker'?"),
        ("[redis]\nhost = 'h'", "1: no table is called 'redis'; did you mean 'broker.redis'?"),
        (
            "[broker.redis]\nhots = 'h'",
            "2: no setting is called 'broker.redis.hots'; did you mean 'broker.redis.host'?",
        ),
        (
            "[broker.rabbitmq]\nprefetch = 10",
            "2: no setting is called 'broker.rabbitmq.prefetch'; did you mean 'worker.prefetch'?",
        ),
        ("broker.redis.hots = 'h'", "called 'broker.redis.hots'; did you mean 'broker.redis.host'?"),
        ("worker = 3", "1: worker: must be a table, written [worker]"),
        ("[[worker]]\nprefetch = 1", "1: worker: must be a table"),
        ("[worker]\nconcurrency = '32'", "2: worker.concurrency = '32': must be a whole number"),
        ("[worker]\nconcurrency = 3.9", "2: worker.concurrency = 3.9"),
        ("[worker]\nrequire_broker = 'yes'", "2: worker.require_broker = 'yes': must be true or false"),
        ("[worker]\nshutdown_timeout = nan", "2: worker.shutdown_timeout = nan: must be seconds"),
        ("[worker]\nqueue = ['a']", "2: worker.queue = ['a']"),
        ("[worker.queue]\na = 1", "1: worker.queue = {'a': 1}"),
        ("[broker]\ntype = 'rabit'", "2: broker.type = 'rabit': must be 'embedded', 'redis'"),
        ("[broker]\nstate_dir = 3", "2: broker.state_dir = 3: must be the path"),
        ("[broker.redis]\npassword = 3", "2: broker.redis.password = '**********'"),
        ("[worker\n", "is not TOML: "),
        ("[worker]\nqueue = 'a'\nqueue = 'b'\n", "is not TOML: "),
    ],
)
def test_what_is_wrong_in_the_file_is_said_with_file_and_line(write, text, message):
    path = write(text)

    with pytest.raises(ConfigError) as refused:
        load_config(path, environ={})

    assert str(refused.value).startswith(f"{path}:")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path):
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")

    for path, reason in [
        (tmp_path / "none.toml", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (tmp_path / "bytes.toml", "is not TOML"),
    ]:
        with pytest.raises(ConfigError, match=reason) as refused:
            load_config(path, environ={})
        assert str(path) in str(refused.value)


def test_a_file_with_several_mistakes_is_told_whole(write):
    path = write("[worker]\nprefetch = -1\nqueu = 'a'\n")

    assert len(examine(path, environ={}).problems) == 2
    with pytest.raises(ConfigError, match=r"prefetch = -1.*\(and 1 more: chicory config check"):
        load_config(path, environ={})


def test_a_password_may_be_kept_in_a_file_of_its_own(write, tmp_path):
    (tmp_path / "pw").write_text("secret\n")
    path = write("[broker.redis]\npassword_file = 'pw'\n")
    environ = {"CHICORY_BACKEND_REDIS_PASSWORD_FILE": str(tmp_path / "pw")}

    config, origins = load_with_origins(path, environ=environ)

    assert config.broker.redis.password == config.backend.redis.password == SecretStr("secret")
    assert origins["broker.redis.password"] == f"file {path}:2"
    assert origins["backend.redis.password"] == "env CHICORY_BACKEND_REDIS_PASSWORD_FILE"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("password_file = 'none'", "password_file = .*none': cannot be read: No such file"),
        ("password = 'p'\npassword_file = 'pw'", "not both"),
        ("password_file = 'pw'\npassword = 'p'", "not both"),
        ("password_file = 3", "password_file = 3: must be the path of a file"),
        ("url_file = 'pw'", "broker.redis.url_file = '\\*+': must be a URL"),
    ],
)
def test_a_file_for_a_password_that_is_no_use_is_refused(write, tmp_path, text, message):
    (tmp_path / "pw").write_text("canary")
    path = write(f"[broker.redis]\n{text}\n")

    with pytest.raises(ConfigError, match=message) as refused:
        load_config(path, environ={})
    assert "canary" not in str(refused.value)


# The environment


def test_the_documented_variables_are_read():
    environ = {
        "CHICORY_APP": "tasks:app",
        "CHICORY_BROKER_REDIS_HOST": "localhost",
        "CHICORY_BROKER_REDIS_PORT": "6379",
        "CHICORY_BROKER_REDIS_DB": "0",
        "CHICORY_BROKER_REDIS_USERNAME": "myuser",
        "CHICORY_BROKER_REDIS_PASSWORD": "mypassword",
        "CHICORY_BROKER_REDIS_URL": "redis://user:pass@localhost:6379/0",
        "CHICORY_BROKER_REDIS_CONSUMER_GROUP": "chicory-workers",
        "CHICORY_BROKER_REDIS_BLOCK_MS": "5000",
        "CHICORY_BROKER_REDIS_CLAIM_MIN_IDLE_MS": "30000",
        "CHICORY_BROKER_REDIS_MAX_STREAM_LENGTH": "100000",
        "CHICORY_BROKER_REDIS_DLQ_MAX_LENGTH": "10000",
        "CHICORY_BROKER_REDIS_KEY_PREFIX": "chicory",
    }

    config, origins = load_with_origins(environ=environ)

    assert config.broker.redis == RedisBrokerConfig(
        username="myuser",
        password="mypassword",
        url="redis://user:pass@localhost:6379/0",
        max_stream_length=100000,
        dlq_max_length=10000,
    )
    assert sum(origin.startswith("env ") for origin in origins.values()) == len(environ)


def test_text_becomes_what_the_setting_is():
    environ = {
        "CHICORY_WORKER_QUEUES": "high, low",
        "CHICORY_WORKER_REQUIRE_BROKER": "Yes",
        "CHICORY_WORKER_SHUTDOWN_TIMEOUT": "2.5",
        "CHICORY_BROKER_TYPE": "REDIS",
    }

    config = load_config(environ=environ)

    assert config.worker.queues == ("high", "low")
    assert config.worker.require_broker is True
    assert config.worker.shutdown_timeout == 2.5
    assert config.broker.type is BrokerType.REDIS


def test_an_empty_variable_takes_away_an_optional_value_and_is_refused_for_any_other(write):
    path = write("[broker.redis]\nmax_stream_length = 5\npassword = 'p'\n[worker]\nqueues = ['a']\n")
    empty = dict.fromkeys(
        ("CHICORY_BROKER_REDIS_MAX_STREAM_LENGTH", "CHICORY_BROKER_REDIS_PASSWORD", "CHICORY_WORKER_QUEUES"), ""
    )

    config = load_config(path, environ=empty)

    assert (config.broker.redis.max_stream_length, config.broker.redis.password) == (None, None)
    assert config.worker.queues == ()
    for name in ("CHICORY_WORKER_CONCURRENCY", "CHICORY_BROKER_REDIS_HOST", "CHICORY_WORKER_REQUIRE_BROKER"):
        with pytest.raises(ConfigError, match=f"{name} = '': must be"):
            load_config(environ={name: ""})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("CHICORY_WORKER_CONCURRENCY", "many", "CHICORY_WORKER_CONCURRENCY = 'many': must be a whole number"),
        ("CHICORY_WORKER_CONCURRENCY", "3.5", "CHICORY_WORKER_CONCURRENCY = '3.5'"),
        ("CHICORY_WORKER_SHUTDOWN_TIMEOUT", "nan", "must be seconds"),
        ("CHICORY_BROKER_REDIS_CLUSTER", "maybe", "must be true or false"),
        ("CHICORY_BROKER_REDIS_HOTS", "h", "'CHICORY_BROKER_REDIS_HOTS'; did you mean 'CHICORY_BROKER_REDIS_HOST'?"),
        ("CHICORY_WORKER_CONCURENCY", "3", "did you mean 'CHICORY_WORKER_CONCURRENCY'?"),
        ("CHICORY_BROKER_REDIS_URL", "http://canary", "CHICORY_BROKER_REDIS_URL = '**********'"),
    ],
)
def test_what_is_wrong_in_the_environment_is_said_by_the_variable(name, value, message):
    with pytest.raises(ConfigError) as refused:
        load_config(environ={name: value})

    assert message in str(refused.value)
    assert "canary" not in str(refused.value)


def test_variables_that_are_no_settings_are_left_alone():
    environ = {"CHICORYD_NAME": "x", "CHICORY_HOME": "/", "PATH": "/bin"}

    assert load_config(environ=environ) == load_config(environ={})


def test_the_environment_of_the_process_is_read_when_none_is_given(monkeypatch):
    monkeypatch.setenv("CHICORY_WORKER_PREFETCH", "7")

    assert load_config().worker.prefetch == 7


# Flags


def test_flags_may_be_text_or_typed():
    flags = {"worker.concurrency": "3", "worker.queues": ("a", "b"), "broker.type": BrokerType.MEMORY, "app": None}

    config = load_config(flags=flags, environ={"CHICORY_APP": "tasks:app"})

    assert config.worker.concurrency == 3
    assert config.worker.queues == ("a", "b")
    assert config.broker.type is BrokerType.MEMORY
    assert config.app == "tasks:app"


def test_a_flag_that_is_no_setting_is_refused():
    with pytest.raises(ConfigError, match=r"'worker\.queu'; did you mean 'worker\.queue'"):
        load_config(flags={"worker.queu": "a"}, environ={})


# Lines


def test_keys_are_found_on_the_lines_they_begin_on():
    text = textwrap.dedent('''\
        # [not.a.table]
        app = "x"

        [a]  # b = 1
        one = [
          "[c]",
          # three = 3
        ]
        two = """
        four = 4
        """
        'five' = 5
        inline = {six = 6}
        dotted.seven = 7
        [[d]]
        eight = 8
        ''')

    lines = key_lines(text)

    assert {key: lines[key] for key in ("app", "a", "a.one", "a.two", "a.five", "d", "d.eight")} == {
        "app": 2, "a": 4, "a.one": 5, "a.two": 9, "a.five": 12, "d": 15, "d.eight": 16,
    }  # fmt: skip
    assert (lines["a.inline.six"], lines["a.dotted.seven"]) == (13, 14)
    assert not {"not", "a.three", "a.four", "a.b", "c"} & lines.keys()


def test_a_size_is_bytes_or_has_a_unit():
    assert SupervisorConfig(memory_soft="512MiB").memory_soft == 512 * 2**20
    assert SupervisorConfig(memory_soft=4096).memory_soft == 4096
    assert load_config(environ={"CHICORY_SUPERVISOR_MEMORY_SOFT": "1 GiB"}).supervisor.memory_soft == 2**30


# The file that comes along


def test_the_example_file_is_valid_and_sets_only_what_is_needed():
    config, origins = load_with_origins(ROOT / "conf/chicory.toml", environ={})

    assert config.app == "examples.census.tasks:app"
    assert config.broker.type is BrokerType.EMBEDDED
    assert {key for key, origin in origins.items() if origin != "default"} == {"app", "broker.type"}


def test_the_example_file_documents_every_setting_with_its_default():
    uncommented = re.sub(r"(?m)^#(\w+ = )", r"\1", (ROOT / "conf/chicory.toml").read_text())
    said = dict(flatten(tomllib.loads(uncommented)))

    secret_files = {option.file_key for option in options().values()} - {None}
    assert said.keys() == options().keys() | secret_files
    for key, option in options().items():
        assert option.rule.check(said[key]) == option.default or option.default is None


# What it costs


def test_settings_made_in_code_import_no_library_for_loading():
    probe = "import sys, chicory.config; print(*sorted({name.partition('.')[0] for name in sys.modules}))"

    imported = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout.split()

    assert "attrs" in imported
    assert not {"typed_settings", "cattrs", "trio", "redis", "click", "tomli_w", "pydantic"} & set(imported)


def other_than_default(option):
    """A value that is allowed and is not the default."""
    special = {
        "app": "other:app",
        "broker.type": "redis",
        "backend.type": "none",
        "backend.sql.url": "postgresql://elsewhere/results",
        "broker.rabbitmq.queue_type": "quorum",
        "broker.rabbitmq.data_path": "aio-pika",
        "broker.rabbitmq.max_message_size": 1000,
        "worker.log_level": "DEBUG",
        "worker.on_lease_loss": "finish",
        "worker.queues": ["a", "b"],
        "broker.rabbitmq.hosts": ["a", "b:5673"],
        "worker.heartbeat_interval": 4.0,
        "supervisor.start_method": "exec",
        "supervisor.max_tasks": 9,
        "supervisor.max_age": 9.0,
        "supervisor.memory_soft": 9,
        "supervisor.memory_hard": 9,
        "supervisor.jitter": 0.5,
        "log.format": "json",
        "log.file": "/var/log/other",
    }
    if option.key in special:
        return special[option.key]
    if option.name == "url":
        return "amqp://elsewhere" if "rabbitmq" in option.key else "redis://elsewhere"
    if option.rule.path:
        return os.path.abspath(f"/elsewhere/{option.owner.section}")
    if isinstance(option.default, bool):
        return not option.default
    if isinstance(option.default, int | float):
        return option.default + 1
    return 9 if option.key.endswith(("_length", "_priority", "_timeout")) else "other"


def toml(value):
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value)


def text(value):
    return ",".join(value) if isinstance(value, list) else value.value if isinstance(value, Enum) else str(value)


def flatten(tree, prefix=""):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
