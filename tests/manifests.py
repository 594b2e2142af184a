"""Reading manifests: what the tests of the documents and the tests of the image have in common."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
DEPLOYMENTS = ROOT / "deployments"
PUBLISHED = Path(__file__).parent / "data" / "published"
_UNITS = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "K": 10**3, "M": 10**6, "G": 10**9}


def documents(path, *, switched_on=False):
    """Return the documents of a manifest; `switched_on` with the settings that a # in the first column holds off."""
    text = path.read_text()
    if switched_on:
        text = re.sub(r"^#(?=  +\S)", "", text, flags=re.MULTILINE)
    return list(yaml.safe_load_all(text))


def only(found, kind):
    """Return the one document of that kind."""
    (document,) = [document for document in found if document["kind"] == kind]
    return document


def containers(daemon_set):
    """Return every container of a DaemonSet, those that run first first."""
    spec = daemon_set["spec"]["template"]["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


def memory(quantity):
    """Return the bytes that a quantity such as 50Mi means."""
    number, unit = re.fullmatch(r"(\d+)(\D*)", str(quantity)).groups()
    return int(number) * _UNITS[unit]


def cpus(quantity):
    """Return the number of CPUs that a quantity such as 100m means."""
    text = str(quantity)
    return int(text[:-1]) / 1000 if text.endswith("m") else float(text)
