"""What is in the image, and what is not."""

from __future__ import annotations

import hashlib
import json
import subprocess
import uuid

import pytest

import entrypoint
from tests.container.images import STAND_IN
from tests.container.lab import BASE, podman
from tests.manifests import ROOT

PROGRAM = "/opt/multus-entrypoint/bin/multus-entrypoint"


def inside(image, *command):
    """Return what a command prints in the image."""
    entrypoint, *arguments = command
    return podman(
        "run", "--rm", "--pull=never", "--network=none", f"--entrypoint={entrypoint}", image, *arguments
    ).stdout


BESIDE_THE_BINARY = "/usr/src/multus-cni/bin"


@pytest.mark.parametrize("directory", ["", BESIDE_THE_BINARY])
@pytest.mark.parametrize("name", ["entrypoint.sh", "thin_entrypoint", "install_multus"])
def test_the_names_of_earlier_images_are_our_program(image, directory, name):
    assert inside(image, "readlink", f"{directory}/{name}").strip() == PROGRAM
    assert inside(image, f"{directory}/{name}", "--version") == inside(image, PROGRAM, "--version")


def test_the_license_of_multus_is_beside_it(image):
    assert inside(image, "cat", "/usr/src/multus-cni/LICENSE") == (ROOT / "LICENSE").read_text()


def test_uuidgen_gives_another_identifier_each_time(image):
    lines = inside(image, "sh", "-c", "uuidgen; uuidgen").split()
    assert len({uuid.UUID(line) for line in lines}) == 2


def test_the_image_says_which_multus_it_carries(image):
    assert inside(image, "printenv", "MULTUS_VERSION").strip() == STAND_IN
    labels = json.loads(podman("image", "inspect", image).stdout)[0]["Labels"]
    assert labels["io.multus-entrypoint.multus-version"] == STAND_IN
    assert STAND_IN in inside(image, PROGRAM, "--version")


def test_without_a_command_the_image_runs_our_program(image):
    done = podman("run", "--rm", "--pull=never", "--network=none", image, "--version")
    assert done.stdout.startswith("multus-entrypoint ")


def test_the_binaries_of_multus_are_where_its_own_image_has_them(image, binary):
    directory = "/usr/src/multus-cni/bin"
    assert inside(image, "sha256sum", f"{directory}/multus").split()[0] == hashlib.sha256(binary).hexdigest()
    assert inside(image, "cat", f"{directory}/passthru") == "passthru"
    inside(image, f"{directory}/multus")


def test_a_release_of_multus_without_passthru_gives_an_image_without_it(image_without_passthru):
    files = inside(image_without_passthru, "ls", BESIDE_THE_BINARY).split()
    assert files == ["entrypoint.sh", "install_multus", "multus", "thin_entrypoint"]


def test_the_static_configuration_is_where_the_default_of_the_flag_looks(image):
    text = inside(image, "cat", "/usr/src/multus-cni/images/70-multus.conf")
    assert json.loads(text) == json.loads((ROOT / "images" / "70-multus.conf").read_text())


def test_no_tool_that_builds_or_fetches_is_left(image):
    tools = "gcc cc make pip pip3 git curl wget"
    script = f"PATH=$PATH:/opt/multus-entrypoint/bin; for tool in {tools}; do command -v $tool; done; true"
    assert inside(image, "sh", "-c", script) == ""


def test_no_package_list_cache_log_or_secret_of_the_build_is_left(image):
    script = "find /var/lib/apt/lists /var/cache/apt /var/log/apt /var/cache/debconf /root/.cache /tmp -type f"
    assert inside(image, "sh", "-c", f"{script} 2>/dev/null; ls /run/secrets 2>/dev/null; true") == ""


def test_every_module_is_compiled_and_no_byte_code_holds_a_time(image):
    """A source without byte code, or with a time that no longer fits, would be compiled at every start."""
    script = """
import importlib.util, pathlib, sys
bare, timed = [], []
for root in ("/opt/multus-entrypoint/lib", "/usr/lib/python3.13"):
    for source in pathlib.Path(root).rglob("*.py"):
        code = pathlib.Path(importlib.util.cache_from_source(source))
        if not code.exists():
            bare.append(str(source))
        elif code.read_bytes()[4:8] != b"\\1\\0\\0\\0":
            timed.append(str(source))
print(len(bare), len(timed), *bare[:5], *timed[:5])
"""
    assert inside(image, "/usr/bin/python3", "-c", script).split() == ["0", "0"]


def test_the_program_imports_all_that_the_check_of_the_cluster_needs_and_the_asynchronous_client_is_gone(image):
    script = (
        "import kubernetes.client as k; k.AuthorizationV1Api(); k.CoreV1Api(); k.CustomObjectsApi(); "
        "from importlib.util import find_spec as f; print(*map(f, ['aiohttp', 'yarl', 'multidict', 'frozenlist']))"
    )
    assert inside(image, "/opt/multus-entrypoint/bin/python3", "-c", script).split() == ["None"] * 4


def test_the_labels_say_what_it_is(image):
    labels = json.loads(podman("image", "inspect", image).stdout)[0]["Labels"]
    prefix = "org.opencontainers.image."
    assert labels[f"{prefix}title"] == "multus-entrypoint"
    assert labels[f"{prefix}version"] == entrypoint.__version__
    assert labels[f"{prefix}licenses"] == "Apache-2.0"
    assert labels[f"{prefix}base.name"] == BASE
    assert len(labels[f"{prefix}revision"]) == 40


def test_a_second_build_of_the_same_commit_gives_the_same_program(image):
    """Compared file by file: content, mode, target. Debian's own packages are not ours, so that only the stage is built
    that the program comes from, without any cache.

    A cached layer of the image keeps the date of the commit that it was built for; but all files have the same.
    """
    program = "/opt/multus-entrypoint"
    files = f"find {program} -type f -exec sha256sum {{}} + | sort; find {program} -printf '%p %m %l\\n' | sort"
    times = f"find {program} -printf '%T@\\n' | sort --unique"
    again, date = "localhost/multus-entrypoint:again", 1_700_000_000
    flags = [f"IMAGE={again}", f"SOURCE_DATE_EPOCH={date}", "BUILD_FLAGS=--no-cache --target=build"]
    subprocess.run(["make", "--no-print-directory", "image", *flags], cwd=ROOT, check=True, timeout=900)
    first, second = (inside(each, "sh", "-c", files) for each in (image, again))
    assert len(first.splitlines()) > 1000
    assert first == second
    assert float(inside(again, "sh", "-c", times)) == date
    assert len(inside(image, "sh", "-c", times).split()) == 1
