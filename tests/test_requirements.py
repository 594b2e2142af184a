"""The locked requirements: complete but for what is left out on purpose, because pip is told not to look further."""

import re
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def locked(path):
    return {canonicalize_name(name) for name in re.findall(r"^([A-Za-z0-9._-]+)==", path.read_text(), re.MULTILINE)}


def left_out(root):
    (names,) = re.findall(r"^LEFT_OUT = (.+)$", (root / "Makefile").read_text(), re.MULTILINE)
    return set(names.split())


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_everything_that_a_requirement_requires_is_locked_or_left_out_on_purpose(pytestconfig, name):
    there = locked(pytestconfig.rootpath / name)
    required = {
        canonicalize_name(each.name)
        for package in there
        for each in map(Requirement, metadata.requires(package) or ())
        if each.marker is None or each.marker.evaluate({"extra": ""})
    }
    assert {"click", "kubernetes", "jinja2"} <= there
    assert required - there == {"aiohttp", "aiohttp-retry"}


def test_what_is_left_out_is_in_no_lock(pytestconfig):
    names = left_out(pytestconfig.rootpath)
    assert "aiohttp" in names
    for path in pytestconfig.rootpath.glob("requirements*.txt"):
        assert not names & locked(path)
