"""Process tests: the real program, on real inotify, with the symlink swaps that kubelet does."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

from tests.process.scratch import ScratchHost

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.process)


@pytest.fixture
def host(tmp_path):
    return ScratchHost(tmp_path)


@pytest.fixture
def quiet_host():
    """One in a place where nobody else makes files: the program watches each directory above for its next."""
    with tempfile.TemporaryDirectory(prefix="quiet-", dir=sys.prefix) as directory:
        yield ScratchHost(Path(directory))
