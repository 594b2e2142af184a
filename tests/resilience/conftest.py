"""Resilience tests: the real program, and everything that a node does to it.

The quick form runs with all other tests. `make resilience` sets RESILIENCE=long: the same tests with the counts and
durations of docs/reliability.md. What each of them tried is printed at the end of the run.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.process.scratch import ScratchHost

HERE = Path(__file__).parent
LONG = os.environ.get("RESILIENCE") == "long"
_FIGURES = []


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.resilience)


def pytest_terminal_summary(terminalreporter):
    if _FIGURES:
        terminalreporter.section(f"resilience, {'long' if LONG else 'quick'} form")
        for line in _FIGURES:
            terminalreporter.write_line(line)


@pytest.fixture
def host(tmp_path):
    return ScratchHost(tmp_path)


@pytest.fixture
def new_host(tmp_path):
    """Make one scratch host after the other."""
    made = []

    def make():
        made.append(None)
        return ScratchHost(tmp_path / str(len(made)))

    return make


@pytest.fixture(scope="session")
def long():
    return LONG


@pytest.fixture
def figure(request):
    """Say what was tried; it is printed at the end of the run."""
    return lambda text: _FIGURES.append(f"{request.node.name}: {text}")


@pytest.fixture
def strace():
    if shutil.which("strace") is None:
        pytest.skip("needs strace (apt-get install strace)")
