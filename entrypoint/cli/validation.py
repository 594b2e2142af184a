"""What flags and environment say, checked and made into settings; what cannot be used is named with its flag. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from entrypoint.cni.cniconf import GENERATED, version_key
from entrypoint.settings import DEFAULT_KUBECONFIG_ON_HOST, Settings, Taint

AUTO = "auto"
TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
HOST_PATHS = (
    "multus_kubeconfig_file_host",
    "multus_cni_conf_dir",
    "additional_bin_dir",
    "readiness_indicator_file",
    "multus_log_file",
)
"""Options that are paths of the host, where the plugin runs, and not of this container."""
_LAST_PORT = 65535
_HOST = r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+|\[[0-9A-Fa-f:.]+\]"
# A pattern, and not compiled here: most starts have no taint.
_TAINT_KEY = r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"


class InvalidSettingError(ValueError):
    """A flag or an environment variable holds a value that cannot be used.

    `name` is the flag (`--cni-version`) or the environment variable, the message what was expected and found.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


def build(options: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Make the settings from the options of the command line and the process environment.

    `options` has one key a flag, with underscores; strings, booleans and the wait time-out (seconds) are typed
    already, None stands for a flag whose default is derived from others.
    Raises `InvalidSettingError`.
    """
    conf_dir = Path(options["cni_conf_dir"])
    conf_file = options["multus_conf_file"]
    autoconfig_dir = Path(options["multus_autoconfig_dir"] or conf_dir)
    service_account_dir = Path(options["service_account_dir"])
    on_host = {name: _host_path(name, options[name]) for name in HOST_PATHS}
    patch = options["multus_conf_patch"].strip()
    return Settings(
        cni_conf_dir=conf_dir,
        cni_bin_dir=Path(options["cni_bin_dir"]),
        multus_bin_file=Path(options["multus_bin_file"]),
        static_conf_file=None if conf_file == AUTO else _static_conf_file(conf_file),
        autoconfig_dir=autoconfig_dir,
        master_name=_master_name(options["multus_master_cni_file_name"], autoconfig_dir),
        master_exclude=options["multus_master_cni_exclude"],
        kubeconfig_path_on_host=on_host["multus_kubeconfig_file_host"] or DEFAULT_KUBECONFIG_ON_HOST,
        kubeconfig_path_given=bool(options["multus_kubeconfig_file_host"]),
        multus_conf_dir_on_host=on_host["multus_cni_conf_dir"] or None,
        conf_patch=patch.encode("utf-8", "surrogateescape") if patch.startswith(("{", "[")) else None,
        conf_patch_file=Path(patch) if patch and not patch.startswith(("{", "[")) else None,
        cni_version=_cni_version(options["cni_version"]),
        force_cni_version=options["force_cni_version"],
        namespace_isolation=options["namespace_isolation"],
        global_namespaces=options["global_namespaces"],
        log_level=options["multus_log_level"],
        log_file=on_host["multus_log_file"],
        log_to_stderr=options["multus_log_to_stderr"],
        override_network_name=options["override_network_name"],
        readiness_indicator_file=on_host["readiness_indicator_file"],
        wait_for_readiness=options["wait_for_readiness_indicator"],
        additional_bin_dir=on_host["additional_bin_dir"],
        skip_binary_copy=options["skip_multus_binary_copy"],
        rename_master=options["rename_conf_file"],
        cleanup_on_exit=options["cleanup_config_on_exit"],
        restart_crio=options["restart_crio"],
        skip_config_watch=options["skip_config_watch"],
        skip_tls_verify=options["skip_tls_verify"],
        service_account_dir=service_account_dir,
        ca_file=Path(environ.get("KUBE_CA_FILE") or service_account_dir / "ca.crt"),
        api_server=_api_server(environ),
        kubeconfig_mode=_kubeconfig_mode(environ.get("KUBECONFIG_MODE", "")),
        wait_timeout=options["wait_timeout"],
        ready_file=Path(options["ready_file"]) if options["ready_file"] else None,
        startup_taint=_taint(options["startup_taint"]),
        repair_pods=options["repair_pods"],
        node_name=environ.get("NODE_NAME") or None,
        log_format=options["log_format"],
        dry_run=options["dry_run"],
    )


def _static_conf_file(value: str) -> Path:
    path = Path(value)
    if not path.name or value.strip().lower() == AUTO:
        raise InvalidSettingError("--multus-conf-file", f"expected a file or 'auto', got {value!r}")
    return path


def _master_name(value: str, autoconfig_dir: Path) -> str | None:
    """Accept a bare name, or a path into the autoconfig directory: users give one (upstream issues 696, 759)."""
    if not value:
        return None
    flag = "--multus-master-cni-file-name"
    # normpath, because `..` must not lead out of the directory; realpath would read the disk.
    path = posixpath.normpath(posixpath.join(autoconfig_dir, value))
    directory, name = posixpath.split(path)
    if directory != posixpath.normpath(autoconfig_dir) or value.endswith("/"):
        raise InvalidSettingError(
            flag, f"expected a file of the directory {autoconfig_dir} (--multus-autoconfig-dir), got {value!r}"
        )
    if name in GENERATED:
        raise InvalidSettingError(
            flag, f"{name} is the configuration that this program writes; Multus would wrap itself"
        )
    return name


def on_host(path: str) -> str:
    """Return a path as the host sees it: the DaemonSet mounts the host's directories below /host."""
    return (path.removeprefix("/host") or "/") if path == "/host" or path.startswith("/host/") else path


def _host_path(option: str, value: str) -> str:
    if value and not value.startswith("/"):
        flag = f"--{option.replace('_', '-')}"
        raise InvalidSettingError(flag, f"expected an absolute path of the host, where the plugin runs, got {value!r}")
    return on_host(value)


def _cni_version(value: str) -> str | None:
    if not value:
        return None
    try:
        version_key(value)
    except ValueError as error:
        raise InvalidSettingError("--cni-version", str(error)) from None
    return value


def _kubeconfig_mode(value: str) -> int:
    if not value:
        return 0o600
    if not re.fullmatch(r"(0o?)?[0-7]{1,4}", value):
        raise InvalidSettingError("KUBECONFIG_MODE", f"expected an octal file mode such as 600, got {value!r}")
    return int(value.removeprefix("0o"), 8)


def _taint(value: str) -> Taint | None:
    if not value:
        return None
    key, colon, effect = value.partition(":")
    if not re.fullmatch(_TAINT_KEY, key) or (colon and effect not in TAINT_EFFECTS):
        raise InvalidSettingError(
            "--startup-taint",
            f"expected KEY or KEY:EFFECT with an effect of {', '.join(TAINT_EFFECTS)}, got {value!r}",
        )
    return Taint(key, effect or None)


def _api_server(environ: Mapping[str, str]) -> str | None:
    host = environ.get("KUBERNETES_SERVICE_HOST", "")
    port = environ.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port:
        return None
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) <= _LAST_PORT:
        raise InvalidSettingError("KUBERNETES_SERVICE_PORT", f"expected a port number, got {port!r}")
    if not re.fullmatch(_HOST, host):
        raise InvalidSettingError("KUBERNETES_SERVICE_HOST", f"expected a name or an IP address, got {host!r}")
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    protocol = environ.get("KUBERNETES_SERVICE_PROTOCOL") or "https"
    if protocol.lower() not in {"http", "https"}:
        raise InvalidSettingError("KUBERNETES_SERVICE_PROTOCOL", f"expected http or https, got {protocol!r}")
    return f"{protocol.lower()}://{host}:{port}"
