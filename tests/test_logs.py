import io
import logging
import sys

from entrypoint import logs


class _FullAtFirst(io.StringIO):
    full = True

    def write(self, text):
        if self.full:
            self.full = False
            raise OSError(28, "No space left on device")
        return super().write(text)


def test_a_line_that_cannot_be_written_is_lost_without_a_traceback(monkeypatch):
    stream = _FullAtFirst()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    logs.configure("text")
    logs.logger.error("lost")
    logs.logger.error("written")
    assert stream.getvalue().endswith("error: written\n")
    assert stream.getvalue().count("\n") == 1
