"""A secret is given away by one method and by nothing else."""

import copy
import json
import logging
import pickle
import traceback

import attrs
import msgspec
import pytest

from chicory.config import BrokerConfig, ChicoryConfig, RedisBrokerConfig
from chicory.secret import SecretStr

CANARY = "canary-7f3a"


class ForeignSecret:
    """As pydantic's is."""

    def get_secret_value(self) -> str:
        return CANARY


def test_it_gives_the_text_when_asked():
    assert SecretStr(CANARY).get_secret_value() == CANARY


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        format,
        "{0}".format,
        "{0!r}".format,
        "{0:>40}".format,
        lambda secret: "%s %r" % (secret, secret),  # noqa: UP031
        lambda secret: f"{secret} {[secret]}",
        lambda secret: repr(RedisBrokerConfig(password=secret, url="redis://:" + CANARY + "@h")),
        lambda secret: str(attrs.asdict(RedisBrokerConfig(password=secret))),
        lambda secret: json.dumps({"password": secret}, default=str),
    ],
)
def test_no_way_of_showing_it_shows_the_text(show):
    shown = show(SecretStr(CANARY))

    assert CANARY not in shown
    assert "**********" in shown


@pytest.mark.parametrize("write", [pickle.dumps, json.dumps, msgspec.json.encode, msgspec.to_builtins])
def test_what_would_carry_it_elsewhere_is_refused_without_showing_it(write):
    with pytest.raises(TypeError) as refused:
        write(SecretStr(CANARY))

    assert CANARY not in "".join(traceback.format_exception(refused.value))


def test_a_configuration_with_a_password_is_not_pickled():
    with pytest.raises(TypeError):
        pickle.dumps(ChicoryConfig(broker=_broker(CANARY)))


def test_a_log_record_does_not_show_it(caplog):
    logging.getLogger("chicory.test").warning("connecting with %s, %r", SecretStr(CANARY), _broker(CANARY))

    assert "**********" in caplog.text
    assert CANARY not in caplog.text


def test_copies_hold_the_same_text():
    secret = SecretStr(CANARY)

    assert copy.copy(secret) == copy.deepcopy(secret) == secret


def test_equality_and_hash_go_by_the_text():
    assert SecretStr("a") == SecretStr("a")
    assert SecretStr("a") != SecretStr("b")
    assert SecretStr("a") != "a"
    assert len({SecretStr("a"), SecretStr("a"), SecretStr("b")}) == 2
    assert not SecretStr("")


def test_secrets_of_other_libraries_and_plain_strings_are_taken():
    for given in (CANARY, SecretStr(CANARY), ForeignSecret()):
        password = RedisBrokerConfig(password=given).password

        assert isinstance(password, SecretStr)
        assert password.get_secret_value() == CANARY


@pytest.mark.parametrize("wrong", [5, None, b"bytes"])
def test_only_text_becomes_a_secret(wrong):
    with pytest.raises(TypeError, match="made from a string"):
        SecretStr(wrong)


def _broker(password):
    return BrokerConfig(redis=RedisBrokerConfig(password=password))
