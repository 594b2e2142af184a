"""The two documents that this program writes, made from the templates beside this file. Pure."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import jinja2

from entrypoint.cni.cniconf import GENERATED_CONF, GENERATED_CONFLIST, Master, for_multus, version_key
from entrypoint.cni.gojson import parse
from entrypoint.cni.mergepatch import merged
from entrypoint.settings import Settings

DEFAULT_NETWORK_NAME = "multus-cni-network"
ASSUMED_CNI_VERSION = "0.1.0"
"""What a configuration without a version counts as (CNI specification)."""

_LIST_SINCE = (1, 0, 0)
_CHECK_SINCE = (0, 4, 0)


class CannotWrapError(ValueError):
    """The master cannot be wrapped as the flags ask; the message says why and what to do."""


def multus_configuration(settings: Settings, master: Master, patch: Mapping[str, Any]) -> tuple[str, bytes]:
    """Wrap the master; return the file name and content of the configuration that the CNI runtime shall read.

    `patch` is a JSON merge patch for Multus's part of it.

    Below CNI 1.0.0 that is a single plugin in `00-multus.conf`, from 1.0.0 on a list in `00-multus.conflist`.
    Raises `CannotWrapError`.
    """
    version, document = _versions(settings, master)
    file_name = GENERATED_CONFLIST if version_key(version) >= _LIST_SINCE else GENERATED_CONF
    document = for_multus(document)
    content = _rendered(
        file_name.removeprefix("00-") + ".j2",
        cni_version=version,
        level=_list_options(settings, document),
        name=master.name if settings.override_network_name else DEFAULT_NETWORK_NAME,
        plugin=list(merged(_plugin_options(settings, master), patch).items()),
        master=document,
    )
    parse(content)  # never write what the runtime could not read
    return file_name, content


def kubeconfig(server: str, token: str, certificate_authority: bytes | None) -> bytes:
    """Return the kubeconfig; without a certificate authority, one that does not verify the server's certificate."""
    encoded = None if certificate_authority is None else base64.b64encode(certificate_authority).decode("ascii")
    return _rendered("kubeconfig.j2", server=server, token=token, certificate_authority=encoded)


def _rendered(template: str, **values: object) -> bytes:
    return _TEMPLATES.get_template(template).render(values).encode("ascii")


def _versions(settings: Settings, master: Master) -> tuple[str, dict[str, Any]]:
    """Return the version of the configuration, and the master's document as it is to be wrapped.

    A master without a version gets the one chosen: with a version-less delegate Multus 4.3 sets pods up but cannot
    tear them down. A version of 0.4.0 or later around an older master is refused, as in Multus 3.9: the runtime
    would call CHECK, which the master's plugins do not know.
    """
    wanted = settings.cni_version or master.cni_version or ASSUMED_CNI_VERSION
    forced = settings.force_cni_version and settings.cni_version is not None
    if master.cni_version is None or forced:
        return wanted, _with_version(master.document, wanted)
    if version_key(wanted) >= _CHECK_SINCE > version_key(master.cni_version):
        raise CannotWrapError(
            f"--cni-version={wanted} cannot wrap a master of CNI version {master.cni_version}: from 0.4.0 on the "
            "runtime uses CHECK, which older plugins do not answer; raise the master's cniVersion or drop the flag"
        )
    if not master.document.get("cniVersion"):
        return wanted, _with_version(master.document, master.cni_version)  # Multus has no use for `cniVersions`
    return wanted, master.document


def _list_options(settings: Settings, document: dict[str, Any]) -> dict[str, bool]:
    """Return what our list has to say as the master does.

    Its `disableGC` keeps a runtime (CRI-O) from taking attachments down that it does not know. A list with the
    master's name has the master's directory of further plugins, too.
    """
    keys = ["disableGC", *(["loadOnlyInlinedPlugins"] if settings.override_network_name else [])]
    return {key: True for key in keys if document.get(key) is True and "plugins" in document}


def _with_version(document: dict[str, Any], version: str) -> dict[str, Any]:
    if "cniVersion" in document:
        return {**document, "cniVersion": version}
    return {"cniVersion": version, **document}


def _plugin_options(settings: Settings, master: Master) -> dict[str, Any]:
    """Return what goes into the plugin beside its delegates, under the names of Multus's configuration reference."""
    options: dict[str, Any] = {
        "type": "multus",
        "capabilities": dict.fromkeys(master.capabilities, True),
        "namespaceIsolation": settings.namespace_isolation,
        "globalNamespaces": settings.global_namespaces,
        "logLevel": settings.log_level,
        "logFile": settings.log_file,
        "binDir": settings.additional_bin_dir,
        "readinessindicatorfile": settings.readiness_indicator_file,
        "confDir": settings.multus_conf_dir_on_host,
        "kubeconfig": settings.kubeconfig_path_on_host,
    }
    chosen = {key: value for key, value in options.items() if value}
    # Multus logs to stderr unless told otherwise, so only the `false` is written.
    return chosen if settings.log_to_stderr else {**chosen, "logToStderr": False}


def _json(value: object) -> str:
    """Filter for templates: a value as JSON.

    Non-ASCII characters are escaped, because JSON may hold lone surrogates, which UTF-8 cannot.
    """
    return json.dumps(value, allow_nan=False)


_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("entrypoint.cni"),
    undefined=jinja2.StrictUndefined,
    autoescape=False,  # noqa: S701 - these are no web pages: every value goes through `json`
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.filters["json"] = _json
