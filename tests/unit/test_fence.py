"""How much a lease may be trusted, and how long a broker is waited for."""

from hypothesis import given
from hypothesis import strategies as st

from chicory.config import RabbitMQBrokerConfig
from chicory.errors import BrokerRefused, BrokerUnavailable
from chicory.outage import REFUSED, Outage, Pace
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
    assert 0 < Pace().wait(failures, draw) <= 1.0


@given(st.integers(1, 100), st.floats(0, 1, exclude_max=True), st.floats(0.001, 60), st.floats(0.001, 600))
def test_the_settings_say_how_fast_the_broker_is_tried_again(failures, draw, first, longest):
    settings = RabbitMQBrokerConfig(reconnect_delay=first, reconnect_max_delay=longest)

    waited = Pace.of(settings).wait(failures, draw)

    assert min(first, longest) / 2 <= waited <= longest
    assert failures > 1 or waited <= first


def test_an_outage_goes_by_the_settings_also_where_the_broker_refuses():
    outage = Outage(Pace(60.0, 60.0))

    assert outage.failed("fetch", BrokerUnavailable("no route")) >= 30.0
    assert outage.failed("fetch", BrokerRefused("wrong password")) >= 30.0


def test_an_outage_is_told_once_and_its_end_once(caplog):
    ends = []
    outage = Outage(over=lambda: ends.append(True))

    for _ in range(5):
        assert outage.failed("fetch", BrokerUnavailable("no route")) <= 1.0
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
