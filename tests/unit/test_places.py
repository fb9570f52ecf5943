"""The memory broker's queue: whatever the moves, each message is in one place and the books close (M1, M13)."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from chicory.brokers.memory.places import ROADS, Entry, Letter, Places
from chicory.types import Failure

OOPS = Failure("ValueError", "oops")


class PlacesMachine(RuleBasedStateMachine):
    held = Bundle("held")
    letters = Bundle("letters")

    def __init__(self):
        super().__init__()
        self.places = Places()
        self.now = 1000.0
        self.number = 0
        # A model of the plainest kind: where each message is, by its task's id.
        self.where = {}

    def next(self):
        self.number += 1
        return self.number

    @rule(priority=st.integers(0, 3), delay=st.none() | st.floats(0.1, 50))
    def publish(self, priority, delay):
        number = self.next()
        entry = Entry(task_id=str(number), raw=b"x", turn=number, priority=priority)
        self.places.publish(entry, None if delay is None else self.now + delay)
        self.where[entry.task_id] = "ready" if delay is None else "delayed"

    @rule(seconds=st.floats(0, 60), limit=st.integers(1, 5))
    def promote(self, seconds, limit):
        self.now += seconds
        due_before = self.places.next_due
        moved = self.places.promote(self.now, limit)

        assert moved <= limit
        assert moved > 0 or due_before is None or due_before > self.now
        assert moved == limit or self.places.next_due is None or self.places.next_due > self.now
        for _, _, entry in self.places._ready:
            self.where[entry.task_id] = "ready"

    @precondition(lambda self: self.places.next_turn is not None)
    @rule(target=held)
    def take(self):
        receipt = self.next()
        best = min(self.places._ready)[2]

        entry = self.places.take(receipt)

        assert entry is best
        assert self.where[entry.task_id] == "ready"
        self.where[entry.task_id] = "delivered"
        return receipt

    @rule(receipt=consumes(held), road=st.sampled_from(["done", "failed"]))
    def finish(self, receipt, road):
        entry = self.places.let_go(receipt)
        self.places.finish(road)
        self.where[entry.task_id] = "finished"

    @rule(receipt=consumes(held), delay=st.none() | st.floats(0.1, 50))
    def retry(self, receipt, delay):
        entry = self.places.let_go(receipt)
        successor = Entry(task_id=entry.task_id, raw=b"again", turn=self.next())
        self.places.retry(successor, None if delay is None else self.now + delay)
        self.where[entry.task_id] = "ready" if delay is None else "delayed"

    @rule(receipt=consumes(held), road=st.sampled_from(["released", "reclaimed"]), charged=st.booleans())
    def put_back(self, receipt, road, charged):
        entry = self.places.let_go(receipt)
        count = entry.count
        self.places.put_back(entry, road, charged=charged, cause="why")
        assert entry.count == count + charged
        self.where[entry.task_id] = "ready"

    @rule(target=letters, receipt=consumes(held))
    def bury(self, receipt):
        entry = self.places.let_go(receipt)
        letter_id = f"{self.next():020d}"
        self.places.bury(letter_id, Letter(entry.raw, entry.task_id, OOPS, self.now), limit=None)
        self.where[entry.task_id] = "dead"
        return letter_id

    @rule(letter_id=consumes(letters), by_task=st.booleans())
    def replay(self, letter_id, by_task):
        letter = self.places.dead[letter_id]
        assert self.places.find(letter.task_id if by_task else letter_id) == letter_id
        self.places.replay(letter_id, Entry(task_id=letter.task_id, raw=letter.raw, turn=self.next()))
        self.where[letter.task_id] = "ready"

    @rule(letter_id=consumes(letters))
    def delete(self, letter_id):
        self.where[self.places.dead[letter_id].task_id] = "deleted"
        self.places.delete(letter_id)
        assert self.places.find(letter_id) is None

    @rule()
    def purge(self):
        for entry in self.places.purge():
            assert self.where[entry.task_id] in ("ready", "delayed")
            self.where[entry.task_id] = "purged"

    @invariant()
    def each_message_is_where_the_model_says(self):
        kept = list(self.where.values())
        sizes = self.places.sizes

        assert (sizes.ready, sizes.delayed, sizes.delivered, sizes.dead) == tuple(
            kept.count(place) for place in ("ready", "delayed", "delivered", "dead")
        )
        assert self.places.length == sizes.ready + sizes.delivered

    @invariant()
    def the_books_close(self):
        totals, sizes = self.places.books, self.places.sizes
        assert set(totals) == set(ROADS)
        ended = sum(totals[road] for road in ("done", "failed", "dead", "purged", "lost"))
        assert totals["published"] + totals["replayed"] == ended + sizes.ready + sizes.delayed + sizes.delivered
        assert totals["dead"] == totals["replayed"] + totals["deleted"] + sizes.dead

    @invariant()
    def the_dead_are_listed_in_order_and_page_by_page(self):
        listed = [letter_id for letter_id, _ in self.places.letters("")]
        assert listed == sorted(self.places.dead)
        if listed:
            assert [letter_id for letter_id, _ in self.places.letters(listed[0])] == listed[1:]


TestPlaces = PlacesMachine.TestCase
TestPlaces.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_an_earlier_message_counts_as_a_change_of_schedule_and_a_later_one_does_not():
    places = Places()

    changes = []
    for turn, due in enumerate([50.0, 60.0, 40.0, 40.0]):
        places.publish(Entry(task_id=str(turn), raw=b"", turn=turn), due)
        changes.append(places.reschedules)

    assert changes == [1, 1, 2, 2]


def test_a_limit_of_dead_letters_forgets_the_oldest_and_counts_it():
    places = Places()
    for number in range(3):
        places.publish(Entry(task_id=str(number), raw=b"", turn=number), None)
        places.take(number)
        places.let_go(number)
        places.bury(f"{number:020d}", Letter(b"", str(number), OOPS, 0.0), limit=2)

    assert [letter.task_id for _, letter in places.letters("")] == ["1", "2"]
    assert places.books["trimmed"] == 1
