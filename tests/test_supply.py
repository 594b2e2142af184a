"""The way of the image from its sources to a node: what is pinned, scanned and signed, and in which order."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PINS = ROOT / "images/Dockerfile"
DIGEST = "sha256:" + "a" * 64


RELEASE = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
STEPS = RELEASE["jobs"]["image"]["steps"]


def using(action):
    return [number for number, step in enumerate(STEPS) if step.get("uses", "").startswith(f"{action}@")]


def running(word):
    (found,) = [number for number, step in enumerate(STEPS) if word in step.get("run", "")]
    return found


def test_the_one_build_is_scanned_on_every_platform_then_signed_and_then_tagged():
    (build,), scans = using("docker/build-push-action"), using("aquasecurity/trivy-action")
    order = [running("make digests licenses"), build, *scans, running("cosign sign"), running("imagetools create")]
    assert order == sorted(order)
    given = STEPS[build]["with"]
    assert "push-by-digest=true" in given["outputs"]
    assert not {"tags", "push", "load"} & set(given)  # nothing has a tag before it was scanned
    assert [STEPS[scan]["env"]["TRIVY_PLATFORM"] for scan in scans] == given["platforms"].split(",")
    for scan in scans:
        wanted = {"image-ref": "${{ env.IMAGE }}@${{ steps.build.outputs.digest }}", "severity": "HIGH,CRITICAL"}
        assert {**wanted, "exit-code": "1"}.items() <= STEPS[scan]["with"].items()
    for word in ("cosign sign", "imagetools create"):
        assert STEPS[running(word)]["env"] == {"DIGEST": "${{ steps.build.outputs.digest }}"}
    assert "no tag is moved" in STEPS[running("imagetools create")]["run"]


def test_the_image_is_built_from_digests_and_with_the_licenses_of_what_is_in_the_binary():
    given = STEPS[using("docker/build-push-action")[0]]["with"]
    pinned = {"DEBIAN_DIGEST=${{ env.DEBIAN_DIGEST }}", "MULTUS_DIGEST=${{ env.MULTUS_DIGEST }}"}
    assert pinned <= set(given["build-args"].splitlines())
    assert given["build-contexts"] == "licenses=${{ env.LICENSES }}"
    assert "COPY --from=licenses / /usr/src/multus-cni/licenses/" in (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize(
    ("event", "pushed", "tags", "said"),
    [
        ("push", "v0.2.0", ["v0.1.0", "v0.2.0"], ["release=v0.2.0", "tag=v0.2.0"]),
        ("schedule", "main", ["v0.9.0", "v0.10.0", "v1.0.0-rc1", "other"], ["release=v0.10.0", "tag=v0.10.0-2"]),
        ("schedule", "main", [], ["release=", "tag=-2"]),  # nothing was released: the job is skipped
    ],
)
def test_the_release_that_is_built_is_the_one_that_was_tagged_or_the_newest(tmp_path, event, pushed, tags, said):
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    subprocess.run(["git", "-C", tmp_path, *identity, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    for tag in tags:
        subprocess.run(["git", "-C", tmp_path, "tag", tag], check=True)
    (script,) = [step["run"] for step in RELEASE["jobs"]["which"]["steps"] if "run" in step]
    variables = {"EVENT": event, "PUSHED": pushed, "GITHUB_OUTPUT": str(tmp_path / "out"), "PATH": "/usr/bin:/bin"}
    subprocess.run(["bash", "-eo", "pipefail", "-c", script], cwd=tmp_path, env=variables, check=True)
    for line, expected in zip((tmp_path / "out").read_text().splitlines(), said, strict=True):
        assert line.startswith(expected)


def make(tmp_path, *arguments):
    """Say what `make image` would run where images/Dockerfile is the one in `tmp_path`."""
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    command = ["make", "-n", "image", *arguments]
    return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout


def test_digests_are_built_from_where_there_are_some_and_only_for_the_release_that_they_are_of(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/Dockerfile").write_text(re.sub(r"(@sha256:\w+)? AS", f"@{DIGEST} AS", PINS.read_text()))
    assert f"--build-arg=MULTUS_DIGEST={DIGEST} --build-arg=DEBIAN_DIGEST={DIGEST}" in make(tmp_path)
    assert f"MULTUS_DIGEST= --build-arg=DEBIAN_DIGEST={DIGEST}" in make(tmp_path, "MULTUS_VERSION=v4.2.4")
    assert "MULTUS_DIGEST= " in make(tmp_path, "MULTUS_DIGEST=")


def test_make_digests_writes_what_the_registry_says(tmp_path):
    (tmp_path / "docker").write_text(f"#!/bin/sh\necho {DIGEST}\n")
    (tmp_path / "docker").chmod(0o755)
    pins = tmp_path / "Dockerfile"
    pins.write_text(PINS.read_text())
    images = re.findall(r"^FROM (\S+?)(?:@\S+)? AS", pins.read_text(), re.MULTILINE)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    for _ in range(2):  # also over a digest that is there
        subprocess.run([ROOT / "tools/pin.sh", pins, *images], env=environment, check=True, capture_output=True)
        assert re.findall(r"^FROM (\S+) AS", pins.read_text(), re.MULTILINE) == [f"{each}@{DIGEST}" for each in images]
    ran = subprocess.run([ROOT / "tools/pin.sh", pins, "other:1"], env=environment, capture_output=True, text=True)
    assert (ran.returncode, "has no line 'FROM other:1'" in ran.stderr) == (1, True)


def test_licenses_are_collected_from_a_release_of_multus(tmp_path):
    source = tmp_path / "multus"
    for number in range(11):
        (source / f"vendor/example.com/m{number}").mkdir(parents=True)
        (source / f"vendor/example.com/m{number}/LICENSE").write_text("x")
        (source / f"vendor/example.com/m{number}/main.go").write_text("x")
    (source / "NOTICE").write_text("x")
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "x"], ["tag", "v9.9.9"]):
        subprocess.run(["git", "-C", source, *command], check=True)
    command = [ROOT / "tools/multus_licenses.sh", "v9.9.9", tmp_path / "out", source]
    subprocess.run(command, check=True, capture_output=True)
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert found == {"NOTICE", *(f"vendor/example.com/m{number}/LICENSE" for number in range(11))}


def test_one_release_of_multus_is_named_in_all_places():
    named = {
        "images/Dockerfile": r"multus-cni:(v[\d.]+)",
        "Makefile": r"^MULTUS_VERSION \?= (v[\d.]+)$",
        "Dockerfile": r"^ARG MULTUS_VERSION=(v[\d.]+)$",
        "README.md": r"bundles Multus ([\d.]+)\)",
        "docs/migrating.md": r"bundles Multus ([\d.]+)\*\*",
        "CHANGELOG.md": r"image around Multus ([\d.]+),",
    }
    found = {name: re.findall(pattern, (ROOT / name).read_text(), re.MULTILINE) for name, pattern in named.items()}
    assert {each.removeprefix("v") for versions in found.values() for each in versions} == {"4.3.1"}
    assert [name for name, versions in found.items() if not versions] == []
