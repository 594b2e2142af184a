"""The templates as functions: made by `make templates` from templates/*.j2, where changes belong.

Each function takes the filter `json` and the values of its template, and yields the pieces of the document.
"""

from collections.abc import Callable, Iterator
from typing import Any

Json = Callable[..., str]


def kubeconfig(json: Json, *, certificate_authority: Any, server: Any, token: Any) -> Iterator[str]:
    """Yield kubeconfig.j2."""
    yield (
        "# Kubeconfig of the Multus CNI plugin on this node; rewritten whenever the service account's token changes.\n"
        "apiVersion: v1\n"
        "kind: Config\n"
        "clusters:\n"
        "  - name: local\n"
        "    cluster:\n"
        "      server: "
    )
    yield json(server)
    if certificate_authority is None:
        yield "\n      insecure-skip-tls-verify: true"
    else:
        yield "\n      certificate-authority-data: "
        yield json(certificate_authority)
    yield "\nusers:\n  - name: multus\n    user:\n      token: "
    yield json(token)
    yield (
        "\n"
        "contexts:\n"
        "  - name: multus-context\n"
        "    context:\n"
        "      cluster: local\n"
        "      user: multus\n"
        "current-context: multus-context\n"
    )


def multus_conf(json: Json, *, cni_version: Any, master: Any, name: Any, plugin: Any) -> Iterator[str]:
    """Yield multus.conf.j2."""
    yield '{\n    "cniVersion": '
    yield json(cni_version)
    yield ',\n    "name": '
    yield json(name)
    yield ","
    for key, value in plugin:
        yield "\n    "
        yield json(key)
        yield ": "
        yield json(value)
        yield ","
    yield '\n    "delegates": [\n        '
    yield json(master, indent=8)
    yield "\n    ]\n}\n"


def multus_conflist(json: Json, *, cni_version: Any, master: Any, name: Any, plugin: Any) -> Iterator[str]:
    """Yield multus.conflist.j2."""
    yield '{\n    "cniVersion": '
    yield json(cni_version)
    yield ',\n    "name": '
    yield json(name)
    yield ',\n    "plugins": [\n        {'
    for key, value in plugin:
        yield "\n            "
        yield json(key)
        yield ": "
        yield json(value)
        yield ","
    yield '\n            "delegates": [\n                '
    yield json(master, indent=16)
    yield "\n            ]\n        }\n    ]\n}\n"
