"""`make demo`: what it says of itself, and where it sends its reader."""

import re
from xml.etree import ElementTree

import pytest

from tests.manifests import DEPLOYMENTS, ROOT, containers, documents, only
from tests.test_docs import anchors
from tools import picture

pytestmark = pytest.mark.process


def test_the_demo_shows_what_it_says_and_the_picture_in_the_readme_is_what_it_prints():
    """`make picture` draws it anew."""
    coloured = picture.run()
    shown = re.split(r"^(?=\d+\. |Next: )", re.sub(r"\033\[\d+m", "", coloured), flags=re.MULTILINE)
    assert len(shown) == 1 + 5 + 1
    assert "stand-in" in shown[0]
    (container,) = containers(only(documents(DEPLOYMENTS / "multus-daemonset.yml"), "DaemonSet"))
    for flag in container["args"]:
        assert flag.replace("=/host/", "=$HOST/").replace("=/run/multus-entrypoint/", "=$RUN/") in shown[1]
    for path, fragment in re.findall(r"([\w/]+\.md)#([\w-]+)", shown[-1]):
        assert fragment in anchors(ROOT / path)
    assert picture.same(picture.PICTURE.read_text("utf-8")) == picture.same(picture.drawn(coloured))
    assert f"({picture.PICTURE.relative_to(ROOT)})" in (ROOT / "README.md").read_text("utf-8")


def test_the_picture_is_well_formed_and_runs_nothing():
    elements = [element.tag.rpartition("}")[2] for element in ElementTree.parse(picture.PICTURE).iter()]
    assert set(elements) == {"svg", "style", "rect", "text", "tspan"}
