"""Ids: unique, ordered by time, and telling their age."""

import time
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chicory.ids import born, new_id


def test_an_id_is_a_uuid_of_version_7():
    made = uuid.UUID(new_id())

    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.hex == made.hex.lower()


def test_ids_do_not_repeat():
    assert len({new_id() for _ in range(20_000)}) == 20_000


def test_an_id_tells_when_it_was_made():
    before = time.time()
    made = born(new_id())
    after = time.time()

    assert made is not None
    assert before - 0.001 <= made <= after


def test_later_ids_sort_after_earlier_ones(monkeypatch):
    instants = [0, 1_700_000_000_000, 1_700_000_000_001, 2**47]
    ids = []
    for instant in instants:
        monkeypatch.setattr(time, "time_ns", lambda instant=instant: instant * 1_000_000)
        ids.append(new_id())

    assert ids == sorted(ids)
    assert [born(one) for one in ids] == [instant / 1000 for instant in instants]


@given(st.text() | st.text("0123456789abcdef", min_size=32, max_size=32))
def test_born_answers_for_any_text(text):
    made = born(text)

    assert made is None or 0 <= made < 2**48 / 1000


@pytest.mark.parametrize("foreign", ["", "order-17", uuid.uuid4().hex[:12] + "4" + uuid.uuid4().hex[13:], "z" * 32])
def test_an_id_of_somebody_elses_making_has_no_age(foreign):
    assert born(foreign) is None
