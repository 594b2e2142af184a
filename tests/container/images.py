"""Building the project's image around a stand-in for Multus's own, for the tests and for the bench."""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
import tarfile
from pathlib import Path

from tests.container.lab import BASE, podman
from tests.manifests import ROOT

MULTUS = "ghcr.io/k8snetworkplumbingwg/multus-cni"
STAND_IN = "stand-in-64mib"
BINARY_SIZE = 64 * 2**20
"""As big as the real multus: what is copied is charged to the container as page cache."""


def reason_to_skip():
    """Say why no container can be run here; None when one can."""
    if shutil.which("podman") is None:
        return "podman is not installed"
    if os.geteuid() != 0:
        return "needs root: control groups and capabilities are tested"
    if subprocess.run(["podman", "image", "exists", BASE]).returncode != 0:
        return f"the base image {BASE} is not there, and this machine may reach no registry to pull it from"
    return None


def big_binary():
    """Return a program as big as multus, that runs: a small one, filled up with what no compression shrinks."""
    program = Path("/bin/true").read_bytes()
    return program + random.Random(1).randbytes(BINARY_SIZE - len(program))


def stand_in(tag, files):
    """Make an image that stands for Multus's own: what the Dockerfile copies from it, and nothing else.

    `files` is a dictionary of their contents, or a function that returns it when there is no such image yet.
    """
    name = f"{MULTUS}:{tag}"
    if podman("image", "exists", name, check=False).returncode == 0:
        return name  # a new one would have another date, and every build would start from scratch
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path, content in (files() if callable(files) else files).items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    subprocess.run(["podman", "import", "-q", "-", name], input=archive.getvalue(), check=True, capture_output=True)
    return name


def stand_in_as_big_as_multus():
    """Make the stand-in that most images are built around, with passthru, as releases of Multus have it since 4.1."""
    return stand_in(
        STAND_IN,
        lambda: {"usr/src/multus-cni/bin/multus": big_binary(), "usr/src/multus-cni/bin/passthru": b"passthru"},
    )


def build(tag, multus_version, *, quiet=False):
    """Build the Dockerfile as `make image` does; return the tag. When it fails and was quiet, print what it said."""
    before = podman("image", "inspect", "--format={{.Id}}", tag, check=False).stdout.strip()
    digests = ["DEBIAN_DIGEST=", "MULTUS_DIGEST="]  # a stand-in has another one than what it stands for
    command = ["make", "--no-print-directory", "image", f"IMAGE={tag}", f"MULTUS_VERSION={multus_version}", *digests]
    done = subprocess.run(command, cwd=ROOT, timeout=900, capture_output=quiet, text=True)
    if done.returncode != 0:
        print(done.stdout or "", done.stderr or "")
    done.check_returncode()
    if before and before != podman("image", "inspect", "--format={{.Id}}", tag).stdout.strip():
        podman("rmi", before, check=False)  # the one that had the name, unless something else needs it
    return tag
