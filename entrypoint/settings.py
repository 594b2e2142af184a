"""What the operator asked for, checked once and never changed afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from entrypoint.cni.cniconf import GENERATED

DEFAULT_KUBECONFIG_ON_HOST = "/etc/cni/net.d/multus.d/multus.kubeconfig"


_HOST_CONF_DIR = "/etc/cni/net.d"


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
    master_name: str | None
    """The one file name of the autoconfig directory to wrap; None: the first in byte order."""
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

    @property
    def token_file(self) -> Path:
        """The service account's token, which kubelet rotates."""
        return self.service_account_dir / "token"

    @property
    def kubeconfig_file(self) -> Path:
        """Where the kubeconfig is written."""
        return self.cni_conf_dir / "multus.d" / "multus.kubeconfig"

    @property
    def record_file(self) -> Path:
        """Where it is remembered what was renamed to NAME.old, under a name that no CNI runtime reads."""
        return self.kubeconfig_file.with_name("renamed-masters")

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
        if not directory.endswith(_HOST_CONF_DIR):
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
