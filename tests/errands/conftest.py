"""An errand in the test's own process: an ear for what it says, and no time."""

import pytest

from entrypoint.errands import child


class Log(list):
    """Level and message of all that was said."""

    def text(self):
        return "\n".join(message for _, message in self)

    def at(self, level):
        return [message for each, message in self if each == level]


@pytest.fixture
def do(monkeypatch):
    """Have an errand done, or given up; return what it said.

    `pause` is called instead of waiting, and is true when nobody waits any more.
    """

    def run(errand, order, pause=lambda _seconds: False, *, done=True):
        log = Log()
        monkeypatch.setattr(child, "say", lambda *said: log.append(said))
        monkeypatch.setattr(child, "pause", pause)
        assert errand(order) is done, log.text()
        return log

    return run
