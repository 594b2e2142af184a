"""Process tests: the real program, on real inotify, with the symlink swaps that kubelet does."""

from __future__ import annotations

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
