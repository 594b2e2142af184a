"""`make demo`: what it says of itself, and where it sends its reader."""

import re
from xml.etree import ElementTree

import pytest

from demo import demo
from tests.manifests import DEPLOYMENTS, ROOT, containers, documents, only
from tests.test_docs import anchors
from tools import picture

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def coloured():
    """What the demo prints on a terminal."""
    return picture.run()


@pytest.fixture(scope="module")
def shown(coloured):
    """What the demo prints, by the number of its step; 0 is what stands before the first."""
    return re.split(r"^(?=\d+\. |What to do next$)", re.sub(r"\033\[\d+m", "", coloured), flags=re.MULTILINE)


def test_the_demo_runs_with_the_flags_of_the_manifest(shown):
    (container,) = containers(only(documents(DEPLOYMENTS / "multus-daemonset.yml"), "DaemonSet"))
    for flag in container["args"]:
        assert flag.replace("=/host/", "=$HOST/").replace("=/run/multus-entrypoint/", "=$RUN/") in shown[1]


def test_the_demo_says_that_its_multus_is_a_stand_in(shown):
    assert "stand-in" in shown[0]


def test_cleaning_up_is_a_step_of_its_own(shown):
    assert [number for number, text in enumerate(shown) if "--cleanup-config-on-exit" in text] == [9]
    assert "00-multus.conf" in shown[8].partition("find $HOST")[2]
    assert "00-multus.conf" not in shown[9].partition("find $HOST")[2]


def test_the_demo_ends_with_what_to_do_next(shown):
    assert shown[-1].startswith("What to do next\n")
    assert [line.split()[0] for line in shown[-1].splitlines()[1:]] == [where for where, _ in demo.NEXT]
    for where, _ in demo.NEXT:
        path, _, fragment = where.partition("#")
        assert not fragment or fragment in anchors(ROOT / path), where


def test_the_picture_in_the_readme_is_what_the_demo_prints(coloured):
    """`make picture` draws it anew."""
    assert picture.same(picture.PICTURE.read_text("utf-8")) == picture.same(picture.drawn(coloured))
    assert f"({picture.PICTURE.relative_to(ROOT)})" in (ROOT / "README.md").read_text("utf-8")


def test_the_picture_is_well_formed_and_runs_nothing():
    elements = [element.tag.rpartition("}")[2] for element in ElementTree.parse(picture.PICTURE).iter()]
    assert set(elements) == {"svg", "style", "rect", "text", "tspan"}
