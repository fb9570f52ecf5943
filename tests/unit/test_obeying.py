"""What a worker does when chicoryd says something."""

import pytest

from chicory.worker.serve import obey


class Told:
    """Notes which methods of a worker are called."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *args: self.calls.append((name, *args))


@pytest.mark.parametrize(
    ("message", "calls"),
    [
        ({"t": "stop"}, [("stop",)]),
        ({"t": "stop", "grace": 12.5}, [("stop", 12.5)]),
        ({"t": "stop", "grace": 1}, [("stop", 1)]),
        ({"t": "stop", "grace": 0}, [("hurry",)]),
        ({"t": "stop", "grace": 0.0}, [("hurry",)]),
        ({"t": "stop", "grace": -1}, [("hurry",)]),
        ({"t": "stop", "grace": None}, [("stop",)]),
        ({"t": "quiet"}, [("quiet",)]),
        ({"t": "resume"}, [("resume",)]),
        ({"t": "reconnect"}, [("reconnect",)]),
        ({"t": "reopen"}, []),
        ({"t": "dead", "consumer": "x", "why": "y"}, []),
        ({"t": "from the future", "grace": 0}, []),
    ],
)
def test_each_word_has_its_meaning(message, calls):
    worker = Told()

    obey(worker, message)

    assert worker.calls == calls
