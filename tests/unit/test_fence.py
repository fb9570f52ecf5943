"""How much a lease may be trusted, and how long a broker is waited for."""

from hypothesis import given
from hypothesis import strategies as st

from chicory.errors import BrokerRefused, BrokerUnavailable
from chicory.outage import LONGEST, REFUSED, Outage, wait
from chicory.worker.lease import Fence, fence

leases = st.floats(0.01, 1e6)


@given(leases, st.floats(0, 1))
def test_a_lease_is_trusted_for_two_thirds_and_left_at_nine_tenths(lease, share):
    judged = fence(lease * share, lease)

    if share < 0.66:
        assert judged is Fence.OPEN
    elif 0.67 < share < 0.89:
        assert judged is Fence.HOLD
    elif share > 0.91:
        assert judged is Fence.LEAVE


@given(leases, st.floats(0, 1e7), st.floats(0, 1e7))
def test_trust_only_falls_with_silence(lease, one, other):
    order = [Fence.OPEN, Fence.HOLD, Fence.LEAVE]
    short, long = sorted([one, other])

    assert order.index(fence(short, lease)) <= order.index(fence(long, lease))


@given(st.integers(1, 10**6), st.floats(0, 1, exclude_max=True))
def test_nobody_waits_longer_for_the_broker_than_a_second(failures, draw):
    assert 0 < wait(failures, draw) <= LONGEST


def test_an_outage_is_told_once_and_its_end_once(caplog):
    ends = []
    outage = Outage(over=lambda: ends.append(True))

    for _ in range(5):
        assert outage.failed("fetch", BrokerUnavailable("no route")) <= LONGEST
    outage.answered("renew")
    assert outage.on
    outage.answered("fetch")
    outage.answered("fetch")

    assert not outage.on
    assert ends == [True]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "no route" in caplog.messages[0]


def test_a_refusal_is_tried_again_slowly():
    assert Outage().failed("fetch", BrokerRefused("wrong password")) >= REFUSED / 2
