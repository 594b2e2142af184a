"""Restarting CRI-O as somebody whom the host does not know."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.smallsystemd import bus

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(shutil.which("dbus-daemon") is None, reason="needs dbus-daemon (Debian package dbus)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user"),
]


def test_a_bus_that_hangs_up_on_a_user_whom_the_host_does_not_know_is_told_with_what_to_do():
    with tempfile.TemporaryDirectory() as name, bus(Path(name)) as address:  # pytest's own nobody else may enter
        Path(name).chmod(0o755)
        Path(name, "bus").chmod(0o777)
        code = (
            "import os, jeepney.io.blocking, jeepney.auth\n"
            "from entrypoint.errands import crio\n"
            "os.setuid(54321)\n"
            "try: crio.restart(sys.argv[1], 'crio.service', 5)\n"
            "except crio.RestartError as error: print(error)"
        )
        process = subprocess.run([sys.executable, "-c", f"import sys\n{code}", address], capture_output=True, text=True)
    assert "the bus does not accept this user; run the container as root" in process.stdout, process.stderr
