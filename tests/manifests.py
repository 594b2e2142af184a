"""Reading manifests: what the tests of the documents and the tests of the image have in common."""

from __future__ import annotations

import functools
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
DEPLOYMENTS = ROOT / "deployments"
PUBLISHED = Path(__file__).parent / "data" / "published"
_UNITS = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "K": 10**3, "M": 10**6, "G": 10**9}

CHART = DEPLOYMENTS / "helm" / "multus-entrypoint"
PLATFORMS = sorted(path.parent.name for path in DEPLOYMENTS.glob("*/kustomization.yaml"))
"""The directories for `kubectl apply -k`, their common base included; each has one for the uninstaller in it."""


def documents(path, *, switched_on=False):
    """Return the documents of a manifest, or of a directory for `kubectl apply -k`.

    With `switched_on` the settings count that a # in the first column holds off.
    """
    return parse(_kustomized(path, switched_on) if path.is_dir() else _text(path, switched_on))


def parse(text):
    """Return the documents of a text, which the caller may change."""
    return pickle.loads(_parsed(text))


@functools.cache
def _parsed(text):
    return pickle.dumps([document for document in yaml.load_all(text, yaml.CSafeLoader) if document])


def _text(path, switched_on):
    text = path.read_text()
    return re.sub(r"^#(?=  +\S)", "", text, flags=re.MULTILINE) if switched_on else text


def kustomize(target):
    """Return what `kubectl kustomize` makes of a directory or a URL, as text."""
    command = [Path(sys.executable).parent / "kubectl", "kustomize", target]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


@functools.cache
def _kustomized(directory, switched_on):
    """Return the text for a directory below `DEPLOYMENTS`."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "deployments"
        shutil.copytree(DEPLOYMENTS, root)
        for path in root.rglob("*.y*ml") if switched_on else ():
            path.write_text(_text(path, switched_on))
        return kustomize(root / directory.relative_to(DEPLOYMENTS))


def charted(values):
    """Return the documents that `helm install` would make of the chart in kube-system."""
    crds, rendered = _rendered(values)
    texts = [*crds, *(rendered[name] for name in rendered if name.endswith(".yaml"))]
    return [document for text in texts for document in parse(text)]


def notes(values):
    """Return what `helm install` would print then."""
    (text,) = [text for name, text in _rendered(values)[1].items() if name.endswith("NOTES.txt")]
    return text


def _rendered(values):
    import helm_python as helm  # a tenth of a second

    with helm.Chart.load(CHART) as chart:
        return [crd["data"] for crd in chart.crds], chart.render(values, name="any", namespace="kube-system")


def only(found, kind):
    """Return the one document of that kind."""
    (document,) = [document for document in found if document["kind"] == kind]
    return document


def walk(value):
    """Yield every mapping in a document."""
    if isinstance(value, dict):
        yield value
    for member in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from walk(member)


def containers(daemon_set):
    """Return every container of a DaemonSet, those that run first first."""
    spec = daemon_set["spec"]["template"]["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


def host_paths(daemon_set):
    """Return the runtime's directories on the host: of the configuration, and of the plugins."""
    spec, first = daemon_set["spec"]["template"]["spec"], containers(daemon_set)[0]
    sources = {volume["name"]: volume["hostPath"]["path"] for volume in spec["volumes"] if "hostPath" in volume}
    found = []
    for flag in ("--cni-conf-dir=", "--cni-bin-dir="):
        (path,) = [arg.removeprefix(flag) for arg in first["args"] if arg.startswith(flag)]
        (mount,) = [one for one in first["volumeMounts"] if f"{path}/".startswith(f"{one['mountPath']}/")]
        found.append(sources[mount["name"]] + path.removeprefix(mount["mountPath"]))
    return tuple(found)


def memory(quantity):
    """Return the bytes that a quantity such as 50Mi means."""
    number, unit = re.fullmatch(r"(\d+)(\D*)", str(quantity)).groups()
    return int(number) * _UNITS[unit]


def cpus(quantity):
    """Return the number of CPUs that a quantity such as 100m means."""
    text = str(quantity)
    return int(text[:-1]) / 1000 if text.endswith("m") else float(text)
