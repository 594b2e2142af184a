"""What the operator asked for: flags and environment, checked once and never changed afterwards. Pure."""

from __future__ import annotations

import fnmatch
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from entrypoint.cni.document import GENERATED, is_candidate_name

DEFAULT_KUBECONFIG_ON_HOST = "/etc/cni/net.d/multus.d/multus.kubeconfig"
_HOST_CONF_DIR = "/etc/cni/net.d"

AUTO = "auto"
TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_LAST_PORT = 65535
_HOST = r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+|\[[0-9A-Fa-f:.]+\]"
# A pattern, and not compiled here: most starts have no taint.
_NOT_FOR_STARTUP = ("node.kubernetes.io/", "node-role.kubernetes.io/", "node.cloudprovider.kubernetes.io/")
"""Taints that Kubernetes sets and removes itself, for reasons of its own."""
_TAINT_KEY = r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"


class Taint(NamedTuple):
    """A node taint by key; without an effect, every taint of that key."""

    key: str
    effect: str | None

    def __str__(self) -> str:
        """Return it as operators write it: KEY or KEY:EFFECT."""
        return self.key if self.effect is None else f"{self.key}:{self.effect}"


class Settings(NamedTuple):
    """Every flag and environment variable, validated. Paths are container paths unless a name says otherwise."""

    cni_conf_dir: Path
    cni_bin_dir: Path
    multus_bin_file: Path
    static_conf_file: Path | None
    """The configuration to copy; None with `--multus-conf-file=auto`."""
    autoconfig_dir: Path
    master_names: tuple[str, ...]
    """Names and patterns (as of `fnmatch`) of the autoconfig directory's files to wrap; empty: any."""
    master_exclude: tuple[str, ...]
    """Patterns (as of `fnmatch`) of file names that are never the master."""
    kubeconfig_path_on_host: str
    kubeconfig_path_given: bool
    multus_conf_dir_on_host: str | None
    conf_patch: bytes | None
    """Merge patch for Multus's part of the configuration, given on the command line: JSON."""
    conf_patch_file: Path | None
    """The same, given as a file that is followed."""
    cni_version: str | None
    force_cni_version: bool
    namespace_isolation: bool
    global_namespaces: str
    log_level: str | None
    log_file: str
    log_to_stderr: bool
    override_network_name: bool
    readiness_indicator_file: str
    wait_for_readiness: bool
    """The configuration waits for that file."""
    additional_bin_dir: str
    skip_binary_copy: bool
    plugin_bin_dir: Path | None
    """Directory of this container whose programs are installed beside Multus."""
    rename_master: bool
    cleanup_on_exit: bool
    restart_crio: bool
    skip_config_watch: bool
    skip_tls_verify: bool
    service_account_dir: Path
    ca_file: Path
    api_server: str | None
    """URL of the Kubernetes API server; None when KUBERNETES_SERVICE_HOST or _PORT is unset."""
    kubeconfig_mode: int
    wait_timeout: float
    """Seconds from the start until a master must be there."""
    ready_file: Path | None
    startup_taint: Taint | None
    repair_pods: str | None
    """What is done about pods without their networks: `report` or `delete`."""
    node_name: str | None
    log_format: str
    dry_run: bool

    def names_master(self, name: str) -> bool:
        """Say whether a file of this name may be the master: it is named outright, or matches, or any may be.

        A pattern finds no copies (`NAME.old`, `NAME.bak`); only who is named outright (`name in master_names`) may
        have another suffix, be excluded, or be no network by itself.
        """
        patterns = self.master_names or ("*",)
        return name in patterns or (
            is_candidate_name(name) and any(fnmatch.fnmatchcase(name, each) for each in patterns)
        )

    @property
    def takes_any_version(self) -> bool:
        """The master's CNI version may be any: another one is written over it."""
        return self.force_cni_version and self.cni_version is not None

    @property
    def multus_options(self) -> dict[str, Any]:
        """What these settings put into Multus's part of the configuration, by its configuration reference."""
        options: dict[str, Any] = {
            "namespaceIsolation": self.namespace_isolation,
            "globalNamespaces": self.global_namespaces,
            "logLevel": self.log_level,
            "logFile": self.log_file,
            "binDir": self.additional_bin_dir,
            "readinessindicatorfile": self.readiness_indicator_file,
            "confDir": self.multus_conf_dir_on_host,
            "kubeconfig": self.kubeconfig_path_on_host,
        }
        chosen = {key: value for key, value in options.items() if value}
        # Multus logs to stderr unless told otherwise, so only the `false` is written.
        return chosen if self.log_to_stderr else {**chosen, "logToStderr": False}

    @property
    def token_file(self) -> Path:
        """The service account's token, which kubelet rotates."""
        return self.service_account_dir / "token"

    @property
    def kubeconfig_file(self) -> Path:
        """Where the kubeconfig is written."""
        return self.cni_conf_dir / "multus.d" / "multus.kubeconfig"

    @property
    def ledger_file(self) -> Path:
        """Where we note what on this node is ours, under a name in a directory that no CNI runtime reads."""
        return self.kubeconfig_file.with_name("ledger.json")

    @property
    def kubeconfig_is_ours(self) -> bool:
        """The generated configuration names the kubeconfig that this program writes, whatever the host calls it."""
        return self.kubeconfig_path_on_host.endswith("/multus.d/multus.kubeconfig")

    @property
    def readiness_gate(self) -> Path | None:
        """Where this container sees the file that the configuration waits for; None: it does not wait."""
        if not self.wait_for_readiness:
            return None
        path = self.readiness_indicator_file
        return self.in_container(path) or Path("/host/" + path.lstrip("/"))

    def in_container(self, path_on_host: str) -> Path | None:
        """Return a path of the host as the container sees it if it is mounted beside the configuration directory."""
        directory = str(self.cni_conf_dir)
        if not directory.endswith(_HOST_CONF_DIR) or "\0" in path_on_host:  # anybody's configuration may say that
            return None
        return Path(directory.removesuffix(_HOST_CONF_DIR) + "/" + path_on_host.lstrip("/"))

    @property
    def binary_file(self) -> Path:
        """Where the multus binary is installed."""
        return self.cni_bin_dir / "multus"

    @property
    def output_files(self) -> tuple[Path, ...]:
        """Every configuration file that this program may write in `--cni-conf-dir`."""
        if self.static_conf_file is not None:
            path = self.cni_conf_dir / self.static_conf_file.name
            # Of a single plugin, service meshes make a list.
            return (path, path.with_name(path.name + "list")) if path.suffix == ".conf" else (path,)
        return tuple(self.cni_conf_dir / name for name in GENERATED)


def is_token(content: bytes) -> bool:
    """Say whether a token can stand in an HTTP header; nothing is said of an empty one, a fault of its own."""
    words = content.split()
    return not words or (len(words) == 1 and words[0].isascii() and words[0].decode("ascii").isprintable())


# ---- made of flags and environment ----


class InvalidSettingError(ValueError):
    """A flag or an environment variable holds a value that cannot be used.

    `name` is the flag (`--cni-version`) or the environment variable, the message what was expected and found.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


def build(options: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Make the settings from the options of the command line and the process environment.

    `options` has one key a flag, with underscores, and typed values; None stands for a flag that nobody has set. What
    has the same name in the settings is taken as it was said.
    Raises `InvalidSettingError`.
    """
    conf_file, patch = options["multus_conf_file"], options["multus_conf_patch"].strip()
    autoconfig_dir = options["multus_autoconfig_dir"] or options["cni_conf_dir"]
    service_account_dir = options["service_account_dir"]
    as_said = {name: options[name] for name in Settings._fields if name in options}
    made = dict[str, Any](
        static_conf_file=None if conf_file == AUTO else _static_conf_file(conf_file),
        autoconfig_dir=autoconfig_dir,
        master_names=_master_names(options["multus_master_cni_file_name"], autoconfig_dir),
        master_exclude=options["multus_master_cni_exclude"],
        kubeconfig_path_on_host=options["multus_kubeconfig_file_host"] or DEFAULT_KUBECONFIG_ON_HOST,
        kubeconfig_path_given=bool(options["multus_kubeconfig_file_host"]),
        multus_conf_dir_on_host=options["multus_cni_conf_dir"] or None,
        conf_patch=patch.encode("utf-8", "surrogateescape") if patch.startswith(("{", "[")) else None,
        conf_patch_file=Path(patch) if patch and not patch.startswith(("{", "[")) else None,
        log_level=options["multus_log_level"],
        log_file=options["multus_log_file"],
        log_to_stderr=options["multus_log_to_stderr"],
        wait_for_readiness=options["wait_for_readiness_indicator"],
        skip_binary_copy=options["skip_multus_binary_copy"],
        rename_master=options["rename_conf_file"],
        cleanup_on_exit=options["cleanup_config_on_exit"],
        ca_file=Path(environ.get("KUBE_CA_FILE") or service_account_dir / "ca.crt"),
        api_server=_api_server(environ),
        kubeconfig_mode=_kubeconfig_mode(environ.get("KUBECONFIG_MODE", "")),
        node_name=environ.get("NODE_NAME") or None,
    )
    return Settings(**{**as_said, **made})


def _static_conf_file(value: str) -> Path:
    path = Path(value)
    if not path.name or value.strip().lower() == AUTO:
        raise InvalidSettingError("--multus-conf-file", f"expected a file or 'auto', got {value!r}")
    return path


def _master_names(value: str, autoconfig_dir: Path) -> tuple[str, ...]:
    """Accept names and patterns, each bare or as a path into the autoconfig directory (upstream issues 696, 759)."""
    flag, names = "--multus-master-cni-file-name", []
    for each in filter(None, map(str.strip, value.split(","))):
        # normpath, because `..` must not lead out of the directory; realpath would read the disk.
        directory, name = posixpath.split(posixpath.normpath(posixpath.join(autoconfig_dir, each)))
        if directory != posixpath.normpath(autoconfig_dir) or each.endswith("/"):
            raise InvalidSettingError(
                flag, f"expected a file of the directory {autoconfig_dir} (--multus-autoconfig-dir), got {each!r}"
            )
        if name in GENERATED:
            raise InvalidSettingError(
                flag,
                f"{name} is what this program writes, and Multus would wrap itself: name the default network's file",
            )
        names.append(name)
    return tuple(names)


def _kubeconfig_mode(value: str) -> int:
    if not value:
        return 0o600
    mode = int(value.removeprefix("0o"), 8) if re.fullmatch(r"(0o?)?[0-7]{1,4}", value) else -1
    # What its own writer cannot read back would be written again and again; so would bits that the kernel takes away.
    if not 0o400 <= mode & 0o400 <= mode <= 0o777:  # noqa: PLR2004 - modes
        expected = "an octal file mode such as 600, with which the owner may read"
        raise InvalidSettingError("KUBECONFIG_MODE", f"expected {expected}, got {value!r}")
    return mode


def taint(value: str | Taint) -> Taint:
    """Read a taint as operators write it. Raises ValueError."""
    key, colon, effect = str(value).partition(":")
    if not re.fullmatch(_TAINT_KEY, key) or (colon and effect not in TAINT_EFFECTS):
        effects = ", ".join(TAINT_EFFECTS)
        raise ValueError(f"expected KEY or KEY:EFFECT with an effect of {effects}, got {value!r}")
    if key.startswith(_NOT_FOR_STARTUP):
        raise ValueError(
            f"expected a taint for this alone, such as multus-cni.io/not-ready, got Kubernetes' own, {value!r}"
        )
    return Taint(key, effect or None)


def _api_server(environ: Mapping[str, str]) -> str | None:
    host = environ.get("KUBERNETES_SERVICE_HOST", "")
    port = environ.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port:
        return None
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) <= _LAST_PORT:
        raise InvalidSettingError("KUBERNETES_SERVICE_PORT", f"expected a port number such as 443, got {port!r}")
    if not re.fullmatch(_HOST, host):
        raise InvalidSettingError(
            "KUBERNETES_SERVICE_HOST", f"expected a name or an IP address and no more, got {host!r}"
        )
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    protocol = environ.get("KUBERNETES_SERVICE_PROTOCOL") or "https"
    if protocol.lower() not in {"http", "https"}:
        raise InvalidSettingError("KUBERNETES_SERVICE_PROTOCOL", f"expected http or https, got {protocol!r}")
    return f"{protocol.lower()}://{host}:{port}"
