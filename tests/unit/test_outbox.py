"""What is on its way to Redis: each message is applied once and in order, whatever answers get lost."""

from hypothesis import given
from hypothesis import strategies as st

from chicory.brokers.redis.keys import Keys
from chicory.brokers.redis.outbox import MAX_BATCH, Item, Outbox
from chicory.errors import BrokerUnavailable, ChicoryError, PublishUnknown, QueueFull

KEYS = Keys("t", "default")


class Turn:
    def __init__(self):
        self.is_set = False

    def set(self):
        self.is_set = True

    async def wait(self):
        raise AssertionError


class Server:
    """What `publish.lua` does, in as many lines."""

    def __init__(self, limit=None):
        self.stream = []
        self._seen = {}
        self._limit = limit

    def run(self, keys, args):
        number, answer = self._seen.get(keys[0], (0, 0))
        if number >= args[0]:
            return answer
        room = None if self._limit is None else self._limit - len(self.stream)
        ids = args[6::4][:room]
        self.stream += ids
        self._seen[keys[0]] = (args[0], len(ids))
        return len(ids)


def items(*ids):
    return [Item(str(one), b"", "", False) for one in ids]


def exchange(outbox, server, *, arrives=True, answered=True):
    """One round trip; what is lost is lost on the way there or on the way back."""
    for lane, batch in outbox.batches():
        batch.sent = True
        if arrives:
            reply = server.run(*outbox.call(lane, batch))
            if answered:
                outbox.answer(lane, batch, reply)


@given(
    st.lists(st.integers(1, MAX_BATCH + 50), min_size=1, max_size=6),
    st.lists(st.tuples(st.booleans(), st.booleans()), max_size=20),
)
def test_each_message_is_applied_once_and_in_order(counts, weather):
    outbox, server = Outbox(Turn, limit=None), Server()
    numbers = iter(range(sum(counts)))
    tickets = []

    for count in counts:
        tickets.append(outbox.put(KEYS, 0, items(*[next(numbers) for _ in range(count)])))
        if weather:
            arrives, answered = weather.pop()
            exchange(outbox, server, arrives=arrives, answered=answered)
    for arrives, answered in weather:
        exchange(outbox, server, arrives=arrives, answered=answered)
    while not all(ticket.done for ticket in tickets):
        exchange(outbox, server)

    assert server.stream == [str(number) for number in range(sum(counts))]
    assert all(ticket.turn.is_set and ticket.error is None for ticket in tickets)
    assert [ticket.taken for ticket in tickets] == counts


def test_a_full_queue_is_told_to_the_one_whose_message_it_was():
    outbox, server = Outbox(Turn, limit=3), Server(limit=3)
    first, second = outbox.put(KEYS, 0, items(1, 2)), outbox.put(KEYS, 0, items(3, 4))

    exchange(outbox, server)

    assert (first.done, first.error) == (True, None)
    assert isinstance(second.error, QueueFull)
    assert second.error.published == 1


def test_an_error_reply_ends_the_batch_for_all_in_it():
    outbox = Outbox(Turn, limit=None)
    ticket = outbox.put(KEYS, 0, items(1))
    ((lane, batch),) = outbox.batches()

    outbox.answer(lane, batch, error := ChicoryError("no"))

    assert ticket.error is error
    assert outbox.batches() == []


def test_what_was_sent_is_in_doubt_and_what_was_not_is_surely_not_there():
    outbox, why = Outbox(Turn, limit=None), BrokerUnavailable("gone")
    sent = outbox.put(KEYS, 0, items(1))
    exchange(outbox, Server(), arrives=False)
    waiting = outbox.put(KEYS, 0, items(2))

    outbox.give_up(why)

    assert isinstance(sent.error, PublishUnknown)
    assert sent.error.ids == ("1",)
    assert waiting.error is why


def test_each_is_told_of_its_own_messages_alone():
    outbox, server, why = Outbox(Turn, limit=None), Server(), BrokerUnavailable("gone")
    many = outbox.put(KEYS, 0, items(*range(MAX_BATCH + 10)))
    exchange(outbox, server)
    other = outbox.put(KEYS, 0, items("a", "b"))
    exchange(outbox, server, answered=False)
    again, late = outbox.put(KEYS, 0, items("b")), outbox.put(KEYS, 0, items("c"))

    outbox.give_up(why)

    assert (many.error.published, many.error.ids) == (MAX_BATCH, tuple(str(MAX_BATCH + one) for one in range(10)))
    assert (other.error.published, other.error.ids) == (0, ("a", "b"))
    assert again.error.ids == ("b",)
    assert (late.error, why.published) == (why, 0)


def test_what_was_taken_before_an_error_is_told_to_its_caller_alone():
    outbox, server = Outbox(Turn, limit=None), Server()
    many = outbox.put(KEYS, 0, items(*range(MAX_BATCH + 10)))
    exchange(outbox, server)
    other = outbox.put(KEYS, 0, items("a"))
    ((lane, batch),) = outbox.batches()

    outbox.answer(lane, batch, error := BrokerUnavailable("no"))

    assert (type(many.error), str(many.error), many.error.published) == (BrokerUnavailable, "no", MAX_BATCH)
    assert other.error is error
    assert error.published == 0


def test_one_who_repeats_what_is_in_doubt_waits_for_its_answer():
    outbox, server = Outbox(Turn, limit=None), Server()
    outbox.put(KEYS, 0, items(1))
    exchange(outbox, server, answered=False)
    outbox.give_up(BrokerUnavailable("gone"))

    again = outbox.put(KEYS, 0, items(1))
    exchange(outbox, server)

    assert (again.done, again.error) == (True, None)
    assert server.stream == ["1"]


def test_one_who_leaves_takes_along_what_was_not_sent():
    outbox, server = Outbox(Turn, limit=None), Server()
    leaving, staying = outbox.put(KEYS, 0, items(1)), outbox.put(KEYS, 0, items(2))

    outbox.end(leaving)
    outbox.hand_on()
    exchange(outbox, server)

    assert staying.done
    assert server.stream == ["2"]
