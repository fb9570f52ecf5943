"""AMQP as bytes: whatever way they are cut, what was said is understood; and addresses of RabbitMQ."""

import string
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import body, commands, frame, header

from chicory.brokers.rabbitmq.intake import Tags
from chicory.config import RabbitMQBrokerConfig
from chicory.errors import BrokerUnavailable, ConfigError, PayloadError
from chicory.links.amqp_address import address_from_url, addresses_of
from chicory.links.amqp_channel import Channel
from chicory.links.amqp_control import ControlReader
from chicory.links.amqp_frames import (
    HEARTBEAT,
    Beat,
    Confirmed,
    FrameReader,
    Method,
    Outgoing,
    method_frame,
    publish_frames,
)
from chicory.links.amqp_port import Fate

texts = st.text(string.ascii_letters + string.digits + "._:-é", max_size=40)
headers = st.dictionaries(texts, st.integers(0, 2**40) | texts, max_size=4)
outgoing = st.builds(
    Outgoing, texts, texts, texts, st.binary(max_size=300), st.none() | headers, st.none() | st.integers(0, 9)
)


def delivery(tag, redelivered, content, properties, pieces):
    """A delivery as a server may send it, its body in *pieces*."""
    said = [
        commands.Basic.Deliver(
            consumer_tag="c", delivery_tag=tag, redelivered=redelivered, exchange="e", routing_key="k"
        ),
        header.ContentHeader(body_size=len(content), properties=properties),
        *(body.ContentBody(piece) for piece in pieces if piece),
    ]
    return b"".join(frame.marshal(one, 3) for one in said)


def read(data, cuts=()):
    """All events in *data*, which comes in pieces that end at *cuts*."""
    reader, events, start = FrameReader(), [], 0
    for end in (*sorted(cuts), len(data)):
        events += list(reader.feed(data[start:end]))
        start = max(start, end)
    return events


@given(outgoing, st.sampled_from([200, 4096, 131_072]))
def test_what_is_published_is_what_the_codec_reads(message, frame_max):
    try:
        data = publish_frames(message, 7, frame_max)
    except ValueError:
        assert frame_max == 200
        return

    frames = []
    while data:
        used, channel, found = frame.unmarshal(data)
        assert channel == 7
        assert used <= frame_max
        frames.append(found)
        data = data[used:]
    method, head, *parts = frames
    assert (method.exchange, method.routing_key, method.mandatory) == (message.exchange, message.key, True)
    properties = head.properties
    assert (properties.message_id or "", properties.priority) == (message.id, message.priority)
    assert (properties.headers or {}) == (message.headers or {})
    assert properties.delivery_mode == 2
    assert b"".join(part.value for part in parts) == message.body
    assert head.body_size == len(message.body)


@given(
    st.lists(st.tuples(st.integers(1, 2**60), st.booleans(), st.binary(max_size=50), headers), max_size=4),
    st.lists(st.integers(0, 900), max_size=6),
    st.integers(1, 20),
)
def test_deliveries_are_read_however_they_are_cut(said, cuts, size):
    data = HEARTBEAT
    for tag, redelivered, content, table in said:
        pieces = [content[start : start + size] for start in range(0, len(content), size)]
        data += delivery(tag, redelivered, content, commands.Basic.Properties(headers=table, priority=3), pieces)

    (_, beat), *events = read(data, cuts)

    assert beat == Beat()
    assert [(number, event.consumer, event.tag, event.redelivered) for number, event in events] == [
        (3, "c", tag, redelivered) for tag, redelivered, _, _ in said
    ]
    assert [event.content.body for _, event in events] == [content for _, _, content, _ in said]
    assert [event.content.headers for _, event in events] == [table for _, _, _, table in said]
    assert all(event.content.properties.priority == 3 for _, event in events)


@given(st.integers(1, 2**60), st.booleans(), st.booleans())
def test_confirms_are_read(tag, multiple, taken):
    kind = commands.Basic.Ack if taken else commands.Basic.Nack

    assert read(method_frame(kind(delivery_tag=tag, multiple=multiple), 1)) == [(1, Confirmed(tag, multiple, taken))]


def refused_or_read(data):
    try:
        return read(data) is not None
    except BrokerUnavailable as error:
        return "does not speak AMQP" in str(error)


@given(st.binary(min_size=8, max_size=60))
def test_bytes_that_are_no_amqp_are_refused_or_waited_for_and_never_crash(data):
    assert refused_or_read(data)


@given(st.integers(0, 200), st.integers(0, 255))
def test_a_spoilt_byte_is_refused_or_read_and_never_crashes(at, value):
    data = delivery(1, False, b"body", commands.Basic.Properties(headers={"a": "b"}), [b"bo", b"dy"])
    data += method_frame(commands.Basic.Ack(delivery_tag=1), 1) + method_frame(commands.Queue.DeclareOk("q", 1, 2), 1)
    spoilt = bytearray(data)
    spoilt[at % len(data)] = value

    assert refused_or_read(bytes(spoilt))


@given(st.binary(max_size=40))
def test_properties_that_cannot_be_read_are_none(packed):
    from chicory.links.amqp_frames import PackedContent

    content = PackedContent(b"", packed)

    assert isinstance(content.headers, dict)
    assert isinstance(content.properties, commands.Basic.Properties)


class Wire:
    """A connection that only writes down what is sent."""

    frame_max = 131_072

    def __init__(self):
        self.sent = b""

    def write(self, data):
        self.sent += data

    def fail(self, error):
        raise error

    def forget(self, number):
        pass


@given(st.lists(st.tuples(st.integers(1, 12), st.booleans(), st.booleans()), max_size=12))
def test_each_message_learns_its_fate_once_whatever_is_confirmed_in_which_order(confirms):
    channel = Channel(Wire(), 1)
    batches = [channel.publish([Outgoing("", "q", str(number), b"") for number in range(4)]) for _ in range(3)]
    expected = {}

    for tag, multiple, taken in confirms:
        channel.take(Confirmed(tag, multiple, taken))
        for one in range(1 if multiple else tag, tag + 1):
            expected.setdefault(one, Fate.TAKEN if taken else Fate.REJECTED)

    fates = [fate for batch in batches for fate in batch.fates]
    assert fates == [expected.get(number, Fate.UNKNOWN) for number in range(1, 13)]
    assert [batch.done.is_set() for batch in batches] == [
        all(number in expected for number in range(first, first + 4)) for first in (1, 5, 9)
    ]


def test_a_message_that_came_back_stays_so_although_it_is_confirmed():
    channel = Channel(Wire(), 1)
    batch = channel.publish([Outgoing("", "q", name, b"") for name in ("a", "b", "b")])
    returned = commands.Basic.Return(reply_code=312, reply_text="NO_ROUTE", exchange="", routing_key="q")
    packed = header.ContentHeader(properties=commands.Basic.Properties(message_id="b")).marshal()[12:]

    from chicory.links.amqp_frames import PackedContent

    channel.take(Method(returned, PackedContent(b"", packed)))
    channel.take(Confirmed(3, True, True))

    assert batch.fates == [Fate.TAKEN, Fate.RETURNED, Fate.TAKEN]
    assert batch.done.is_set()


def test_when_the_channel_ends_what_was_not_confirmed_is_unknown():
    channel = Channel(Wire(), 1)
    batch = channel.publish([Outgoing("", "q", name, b"") for name in "ab"])
    channel.take(Confirmed(1, False, True))

    channel.take(Method(commands.Channel.Close(reply_code=406, reply_text="PRECONDITION_FAILED - no")))

    assert batch.done.is_set()
    assert batch.fates == [Fate.TAKEN, Fate.UNKNOWN]
    with pytest.raises(Exception, match="PRECONDITION_FAILED"):
        channel.publish([])


def test_headers_that_fit_into_no_frame_are_the_senders_fault():
    channel = Channel(Wire(), 1)

    with pytest.raises(PayloadError, match="do not fit into a frame"):
        channel.publish([Outgoing("", "q", "a", b""), Outgoing("", "q", "b", b"", {"x": "y" * 200_000})])

    assert not channel._line.sent


@given(st.permutations(range(1, 9)), st.lists(st.integers(1, 8), max_size=4))
def test_acks_settle_each_tag_once_and_none_that_was_not_asked_for(order, cuts):
    tags = Tags()
    for tag in range(1, 9):
        tags.came(tag)
    told, asked, start = set(), set(), 0

    for end in (*sorted(cuts), len(order)):
        some = order[start:end]
        asked.update(some)
        for tag, multiple in tags.acknowledge(some):
            covered = set(range(1, tag + 1)) - told if multiple else {tag}
            assert not covered & told
            told |= covered
        assert told == asked
        start = max(start, end)

    assert list(tags.acknowledge(order)) == []


# What is said of the connection

control = st.sampled_from([HEARTBEAT, method_frame(commands.Connection.Blocked(reason="low on memory"), 0)])


@given(st.lists(control | outgoing.map(lambda message: publish_frames(message, 7, 4096))), st.data())
def test_what_is_said_of_the_connection_is_heard_among_all_else_however_it_is_cut(frames, data):
    whole = b"".join(frames)
    cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=8).map(sorted))
    reader, heard, start = ControlReader(), [], 0

    for end in (*cuts, len(whole)):
        heard += map(wording, reader.feed(whole[start:end]))
        start = end

    ours = b"".join(frame for frame in frames if frame[1:3] == bytes(2))
    assert heard == [wording(event) for _, event in read(ours)]


def wording(event):
    return (event.frame.name, event.frame.marshal()) if isinstance(event, Method) else event


@pytest.mark.parametrize("junk", [b"HTTP/1.1 400 Bad Request", b"AMQP\x00\x00\x09\x01", HEARTBEAT[:-1] + b"x"])
def test_what_speaks_another_language_is_named_also_by_who_hears_little(junk):
    with pytest.raises(BrokerUnavailable, match="does not speak AMQP"):
        list(ControlReader().feed(junk))


# Addresses


def test_a_url_says_everything():
    address = address_from_url("amqp://ann:se%2Fcret@example.test:5673/my%2Fvhost")

    assert (address.host, address.port, address.vhost, address.username) == ("example.test", 5673, "my/vhost", "ann")
    assert address.password.get_secret_value() == "se/cret"
    assert address.tls is None
    assert "/cret" not in f"{address} {address!r}"


@pytest.mark.parametrize("url", ["amqp://h", "amqp://h/", "amqp://h/%2F"])
def test_no_vhost_is_the_one_that_is_always_there(url):
    assert (address_from_url(url).vhost, address_from_url(url).port) == ("/", 5672)


@given(st.text(min_size=1, max_size=20).filter(str.isprintable))
def test_any_password_may_be_quoted(password):
    assert address_from_url(f"amqp://u:{quote(password, safe='')}@h").password.get_secret_value() == password


def test_a_cluster_has_several_hosts_in_their_order():
    by_url = addresses_of(RabbitMQBrokerConfig(url="amqps://ann:secret@one:1,two,[::1]:3/vhost"))
    by_name = addresses_of(RabbitMQBrokerConfig(hosts=["one:1", "two", "[::1]:3"], port=5671, vhost="vhost"))

    assert [(one.host, one.port) for one in by_url] == [("one", 1), ("two", 5671), ("::1", 3)]
    assert [(one.host, one.port) for one in by_name] == [(one.host, one.port) for one in by_url]
    assert {(one.vhost, one.username) for one in by_url} == {("vhost", "ann")}
    assert addresses_of(RabbitMQBrokerConfig(host="one")) == addresses_of(RabbitMQBrokerConfig(hosts=["one"]))


def test_tls_asks_for_a_certificate_unless_told_otherwise():
    assert address_from_url("amqps://h").tls.check_hostname
    assert address_from_url("amqps://h").port == 5671
    assert not address_from_url("amqps://h?verify=verify_none").tls.check_hostname


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "amqp://",
        "amqp://h:port",
        "amqp://h?heartbeat=5",
        "amqps://u:canary@h?cacertfile=/no/such/file",
        "amqps://u:canary@h?unknown=1",
    ],
)
def test_what_cannot_be_read_is_refused_without_its_password(url):
    with pytest.raises(ConfigError, match="the RabbitMQ URL cannot be read") as refused:
        address_from_url(url)

    assert "canary" not in str(refused.value)
    assert refused.value.__cause__ is None or "canary" not in str(refused.value.__cause__)
