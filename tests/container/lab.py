"""Runs the containers of a DaemonSet as kubelet would, with podman and on a scratch host.

What the manifest says is what is run: command, arguments, environment, mounts, security context and limits. What
kubelet adds is added here: the service account's token with its `..data` link, the API server's address, the volumes.
"""

from __future__ import annotations

import functools
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.manifests import containers, cpus, memory
from tests.process.scratch import Volume
from tests.waiting import BOUND

BASE = "docker.io/library/debian:trixie-slim"
API_SERVER = ("10.96.0.1", "443")
SERVICE_ACCOUNT_DIR = "/var/run/secrets/kubernetes.io/serviceaccount"


def podman(*arguments, check=True, timeout=600):
    """Run podman; with `check` a failure raises, and its message has what podman said."""
    done = subprocess.run(["podman", *arguments], capture_output=True, text=True, timeout=timeout)
    if check and done.returncode != 0:
        raise RuntimeError(f"podman {' '.join(arguments)}\nexit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done


class Node:
    """A scratch host: a directory that stands for the node's root."""

    def __init__(self, root):
        self.root = root
        root.mkdir()

    def path(self, on_host):
        """Return where the node's path is on this machine."""
        return self.root / on_host.lstrip("/")

    def write(self, on_host, text):
        """Write a file on the node, its directory included."""
        path = self.path(on_host)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def files(self):
        """Return every file of the node, as paths on the node; but for those by which instances know of each other."""
        found = [path for path in self.root.rglob("*") if not path.is_dir() and path.suffix != ".alive"]
        return sorted(f"/{path.relative_to(self.root)}" for path in found)


class Pod:
    """One pod of a DaemonSet on a node."""

    def __init__(self, daemon_set, node, image, directory, *, config_maps=(), token="token-1", ca="CA"):
        self.node = node
        self.image = image
        self.directory = directory
        self.api_server = API_SERVER
        self.spec = daemon_set["spec"]["template"]["spec"]
        self._config_maps = {document["metadata"]["name"]: document["data"] for document in config_maps}
        self._account = {"token": token, "ca.crt": ca, "namespace": "kube-system"}
        self._containers = {container["name"]: container for container in containers(daemon_set)}
        self._volumes = {volume["name"]: self._volume(volume) for volume in self.spec.get("volumes", [])}
        if self.spec.get("automountServiceAccountToken", True):
            self.service_account = Volume(directory / "kube-api-access", **self._account)
        self.started = []

    def rotate(self, **files):
        """Renew the service account's files (token, ca), as kubelet does."""
        self._account.update({{"ca": "ca.crt"}.get(name, name): content for name, content in files.items()})
        self.service_account.update(**self._account)

    def volume(self, name):
        """Return the directory of a volume on this machine."""
        return self._volumes[name]

    def container(self, name):
        """Return what the manifest says about a container; a test may change it before it starts."""
        return self._containers[name]

    def replace_volume(self, name, path):
        """Mount another directory of this machine than the one that was made for this volume."""
        self._volumes[name] = path

    def create(self, name, *, network="none"):
        """Make a container that does not run yet, and return it."""
        return Running(podman("create", *self._arguments(name, network)).stdout.strip())

    def start(self, name, *, network="none"):
        """Start a container and return it running."""
        running = self.create(name, network=network)
        self.started.append(running)
        podman("start", running.identifier)
        return running

    def run(self, name, *, network="none"):
        """Run a container to its end, as kubelet does with an init container; return its exit code and its log."""
        running = self.start(name, network=network)
        return running.wait(), running.log()

    def remove(self):
        """Remove every container that was started; say whether all of them kept their limits."""
        limited = [running.is_limited() for running in self.started]
        for running in self.started:
            podman("rm", "--force", "--time", "0", running.identifier, check=False)
        return all(limited)

    def _volume(self, volume):
        if "hostPath" in volume:
            path = self.node.path(volume["hostPath"]["path"])
            if volume["hostPath"].get("type") == "DirectoryOrCreate":
                path.mkdir(parents=True, exist_ok=True)
            assert path.exists(), f"kubelet would refuse the pod: {path} is missing"
            return path
        path = self.directory / volume["name"]
        if "configMap" in volume:
            data = self._config_maps.get(volume["configMap"]["name"], {})
            items = volume["configMap"].get("items", [{"key": key, "path": key} for key in data])
            files = {item["path"]: data.get(item["key"], "{}") for item in items}
            Volume(path).update(volume["configMap"].get("defaultMode", 0o644), **files)
        elif "projected" in volume:
            self.service_account = Volume(path, **self._account)
        else:
            assert "emptyDir" in volume, f"this lab knows no volume like {volume}"
            path.mkdir()
        return path

    def _arguments(self, name, network):
        container = self._containers[name]
        context = {**self.spec.get("securityContext", {}), **container.get("securityContext", {})}
        limits = container.get("resources", {}).get("limits", {})
        arguments = ["--pull=never", f"--network={network}", *self._mounts(container), *self._environment(container)]
        # podman puts writable file systems on /run and /tmp of a read-only container; kubelet does not.
        arguments += ["--read-only", "--read-only-tmpfs=false"] if context.get("readOnlyRootFilesystem") else []
        arguments += ["--privileged"] if context.get("privileged") else []
        if context.get("allowPrivilegeEscalation") is False:
            arguments.append("--security-opt=no-new-privileges")
        if "seccompProfile" not in context:
            arguments.append("--security-opt=seccomp=unconfined")  # what Kubernetes does when nobody says otherwise
        capabilities = context.get("capabilities", {})
        arguments += [f"--cap-drop={capability}" for capability in capabilities.get("drop", [])]
        arguments += [f"--cap-add={capability}" for capability in capabilities.get("add", [])]
        if "runAsUser" in context:
            arguments.append(f"--user={context['runAsUser']}:{context.get('runAsGroup', 0)}")
        if "memory" in limits:
            size = memory(limits["memory"])
            arguments += [f"--memory={size}", f"--memory-swap={size}"]
        if "cpu" in limits:
            arguments.append(f"--cpus={cpus(limits['cpu'])}")
        if "command" in container:
            arguments.append(f"--entrypoint={json.dumps(container['command'])}")
        return [*arguments, self.image, *container.get("args", [])]

    def _mounts(self, container):
        mounts = [
            (self._volumes[mount["name"]] / mount.get("subPath", ""), mount["mountPath"], mount.get("readOnly"))
            for mount in container.get("volumeMounts", [])
        ]
        if self.spec.get("automountServiceAccountToken", True):
            mounts.append((self.service_account.path, SERVICE_ACCOUNT_DIR, True))
        return [f"--volume={source}:{target}{':ro' if read_only else ''}" for source, target, read_only in mounts]

    def _environment(self, container):
        host, port = self.api_server
        pairs = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
        for variable in container.get("env", []):
            if "valueFrom" in variable:
                assert variable["valueFrom"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}
                pairs[variable["name"]] = "node-1"
            else:
                pairs[variable["name"]] = variable["value"]
        return [f"--env={name}={value}" for name, value in pairs.items()]


@dataclass
class Running:
    """A container that has been started."""

    identifier: str

    def inspect(self):
        """Return what podman knows about it."""
        return json.loads(podman("inspect", self.identifier).stdout)[0]

    @property
    def cgroup(self):
        """Its control group; ask while it runs."""
        return Cgroup(self.identifier)

    def is_limited(self):
        """Return whether the process is still in the group that has the limits, or has ended."""
        return self.cgroup.holds(self.inspect()["State"]["Pid"])

    def is_running(self):
        return self.inspect()["State"]["Running"]

    def log(self):
        done = podman("logs", self.identifier)
        return done.stdout + done.stderr

    def wait(self):
        """Wait for its end and return its exit code."""
        return int(podman("wait", self.identifier, timeout=BOUND).stdout)

    def exec(self, *command, timeout=120):
        """Run a command inside, under the same limits; return the finished process."""
        return podman("exec", self.identifier, *command, check=False, timeout=timeout)

    def signal(self, name):
        podman("kill", "--signal", name, self.identifier)

    def changes(self):
        """Return the paths that the container has written in its own file system."""
        lines = podman("diff", self.identifier).stdout.splitlines()
        return {line.partition(" ")[2] for line in lines}


UNIFIED = Path("/sys/fs/cgroup/cgroup.controllers").exists()
"""Version 2. A machine with both mounted has its memory and CPU controllers in version 1."""


class Cgroup:
    """The control group of a container and its counters, which are looked for where it was when it was asked first."""

    def __init__(self, identifier):
        self._identifier = identifier

    @functools.cached_property
    def memory(self):
        return self._directory("memory")

    @functools.cached_property
    def cpu(self):
        return self._directory("cpuacct")

    def _directory(self, controller):
        root = Path("/sys/fs/cgroup") / ("" if UNIFIED else controller)
        found = (path for path in root.rglob(f"*{self._identifier}*") if path.is_dir())
        return next(path for path in found if "conmon" not in path.name)  # podman's own has the same number

    def holds(self, pid):
        """Return whether a process is in it, or has ended."""
        try:
            lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        except OSError:
            return True
        limiting = {"memory", "cpu", "cpuacct", *([""] if UNIFIED else [])}
        return all(self._identifier in line for line in lines if limiting & set(line.split(":")[1].split(",")))

    def limit(self):
        return int((self.memory / ("memory.max" if UNIFIED else "memory.limit_in_bytes")).read_text())

    def oom_kills(self):
        return _fields(self.memory / ("memory.events" if UNIFIED else "memory.oom_control"))["oom_kill"]

    def cpu_seconds(self):
        """Return the seconds of CPU of all processes that ever were in it; exact when none runs."""
        if UNIFIED:
            return _fields(self.cpu / "cpu.stat")["usage_usec"] / 1e6
        return int((self.cpu / "cpuacct.usage").read_text()) / 1e9


def _fields(path):
    return {key: int(value) for key, value in (line.split() for line in path.read_text().splitlines())}
