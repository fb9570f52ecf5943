"""Many messages pass the middleware as if each were sent in the middle of the one before it."""

import trio
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from chicory.middleware import around, send_through
from chicory.types import TaskMessage


class Refused(Exception):
    pass


class Layer:
    """One middleware, which notes what it sees.  *habits*: what it does with the first, the second, ... message."""

    def __init__(self, number, habits, said):
        self.number = number
        self.habits = habits
        self.said = said

    async def __call__(self, message, call_next):
        habit = self.habits[message.retries % len(self.habits)]
        self.said.append((self.number, message.name))
        if habit == "refuse":
            raise Refused(self.number, message.name)
        if habit == "change":
            message = replace(message, name=f"{message.name}.{self.number}")
        try:
            if habit == "wait":
                await trio.lowlevel.cancel_shielded_checkpoint()
            with trio.CancelScope():
                await call_next(message)
        except Refused as error:
            self.said.append((self.number, message.name, error.args))
            if habit == "translate":
                raise Refused("translated") from error
            raise
        self.said.append((self.number, message.name, "sent"))


async def inside_one_another(middleware, messages, send):
    sent, there = [], []

    async def enter(index):
        async def innermost(message):
            sent.append(message)
            await enter(index + 1)

        if index < len(messages):
            await around(middleware, innermost)(messages[index])
        else:
            there.extend(await send(sent))

    await enter(0)
    return there


HABITS = st.sampled_from(["pass", "change", "wait", "translate", "refuse"])


@given(st.lists(st.lists(HABITS, min_size=1, max_size=3), max_size=4), st.integers(0, 5), st.booleans())
def test_of_many_it_is_as_if_each_were_sent_inside_the_one_before(layers, count, refuses):
    messages = [TaskMessage(str(number), name=f"m{number}", retries=number) for number in range(count)]

    async def run(way):
        said = []

        async def send(sent):
            said.append([message.name for message in sent])
            if refuses:
                raise Refused("the broker")
            # The broker may have another one instead.
            return [replace(message, id="there") for message in sent]

        middleware = [Layer(number, habits, said) for number, habits in enumerate(layers)]
        try:
            return said, await way(middleware, messages, send)
        except Refused as error:
            return said, error.args

    assert trio.run(run, send_through) == trio.run(run, inside_one_another)


async def test_a_great_many_need_no_great_stack():
    said = []
    layers = [Layer(number, ["change"], said) for number in range(3)]

    async def send(sent):
        said.clear()
        return sent

    sent = await send_through(layers, [TaskMessage(name="m") for _ in range(1500)], send)

    assert {message.name for message in sent} == {"m.0.1.2"}
    assert len(said) == 3 * 1500
