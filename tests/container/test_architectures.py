"""For which architectures the image can be built: those that have a wheel of every locked requirement."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import yaml

from tests.manifests import ROOT

MACHINES = {"amd64": "x86_64", "arm64": "aarch64", "arm/v7": "armv7l", "ppc64le": "ppc64le", "s390x": "s390x"}
"""The architectures of Multus's own images, and what wheels call them."""
WITHOUT = {"arm/v7": "pyyaml", "ppc64le": "pyyaml", "s390x": "markupsafe"}
"""Those that cannot be built, and the requirement that has no wheel there."""


def resolve(machine, scratch):
    """Let pip look for wheels of all requirements, for the Python and the C library of the image's Debian."""
    wanted = ["--python-version=3.13", "--implementation=cp", "--abi=cp313", "--abi=abi3", "--abi=none"]
    wanted += [f"--platform=manylinux_2_{minor}_{machine}" for minor in range(17, 42)]
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--dry-run", "--ignore-installed"]
    command += [
        f"--target={scratch}",
        "--only-binary=:all:",
        "--no-deps",
        "--require-hashes",
        *wanted,
        "-r",
        "requirements.txt",
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("architecture", MACHINES)
def test_every_requirement_has_a_wheel_for_an_architecture_or_is_known_to_have_none(architecture, tmp_path):
    done = resolve(MACHINES[architecture], tmp_path)
    missing = re.search(r"No matching distribution found for ([\w-]+)", done.stderr)
    assert (missing and missing[1]) == WITHOUT.get(architecture), done.stderr
    assert (done.returncode == 0) is (architecture not in WITHOUT), done.stderr


def test_the_release_is_built_for_those_that_have_all():
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]
    (platforms,) = [step["with"]["platforms"] for step in jobs["image"]["steps"] if "platforms" in step.get("with", {})]
    assert platforms.split(",") == [f"linux/{name}" for name in MACHINES if name not in WITHOUT]


def test_the_page_of_the_image_names_what_is_missing():
    page = (ROOT / "docs/image.md").read_text()
    rows = dict(re.findall(r"^ *\| `linux/([\w/]+)` \| no: (\w+) has no wheel", page, re.MULTILINE))
    assert {name: package.lower() for name, package in rows.items()} == WITHOUT
    assert set(re.findall(r"^ *\| `linux/([\w/]+)` \| yes", page, re.MULTILINE)) == set(MACHINES) - set(WITHOUT)
