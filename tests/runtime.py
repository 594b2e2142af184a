"""What a CNI runtime does with a configuration directory: a model of libcni/conf.go and containerd's go-cni."""

import json

MULTUS = json.dumps({"cniVersion": "0.3.1", "name": "m", "type": "multus", "delegates": []}).encode()
MULTUS_LIST = json.dumps({"cniVersion": "1.0.0", "name": "m", "plugins": [{"type": "multus"}]}).encode()
BRIDGE = b'{"cniVersion": "0.3.1", "name": "b", "type": "bridge"}'
NAMES = (
    "00-a.conf",
    "00-multus.conf",
    "00-multus.conflist",
    "00-multus.json",
    "00-n.json",
    "05-b.conflist",
    "10-c.conf",
    "10-flannel.conflist",
    "70-multus.conf",
    "99-loopback.conf",
    ".conf",
    "01-README",
    "00-a.conf.bak",
)
"""Names of files that may stand in a configuration directory."""

CONTENTS = (
    (b'{"cniVersion": "0.3.1", "name": "cbr0", "plugins": [{"type": "flannel"}, {"type": "portmap"}]}'),
    BRIDGE,
    MULTUS,
    MULTUS_LIST,
    b'{"cniVersion": "0.3.1", "name": "m", "type": "multus-shim"}',
    b"",
    b"{",
    b"[]",
    b'{"name": "x"}',
    b'{"name": "x", "plugins": []}',
    b'{"cniVersion": "0.3.1", "name": "lo", "type": "loopback"}',
    b'{"cniVersion": "1.0.0", "name": "i", "plugins": [{"type": "istio-cni"}]}',
    None,
)
"""What may be in them; None: a directory."""

MODES = (
    (),
    ("--cni-version=1.0.0",),
    ("--rename-conf-file",),
    ("--cleanup-config-on-exit",),
    ("--skip-multus-binary-copy",),
    ("--multus-master-cni-file-name=10-flannel.conflist",),
    ("--multus-master-cni-file-name=00-a.conf",),
    ("--multus-conf-file={root}/static/00-multus.conf",),
    ("--multus-conf-file={root}/static/70-multus.conf",),
    ("--multus-conf-file={root}/static/00-multus.cfg",),
    ("--multus-conf-file={root}/static/00-multus.conflist",),
)
"""Flags, with the directory that holds `static`."""

STATIC = ("00-multus.conf", "70-multus.conf", "00-multus.cfg", "00-multus.conflist")


class CannotLoadError(Exception):
    pass


def loaded(directory):
    """Return the list of plugin types that containerd would run for a pod; it stops at the first file."""
    files = [
        path for path in directory.iterdir() if path.suffix in {".conf", ".conflist", ".json"} and not is_dir(path)
    ]
    for path in sorted(files, key=lambda each: each.name.encode()):
        try:
            document = json.loads(path.read_bytes())
        except (ValueError, OSError) as error:
            raise CannotLoadError(path) from error
        if not isinstance(document, dict) or not isinstance(document.get("name"), str):
            raise CannotLoadError(path)
        if path.suffix == ".conflist":
            plugins = document.get("plugins")
            if not isinstance(plugins, list) or not plugins:
                raise CannotLoadError(path)
        else:
            plugins = [document]
        if not all(isinstance(each, dict) and isinstance(each.get("type"), str) and each["type"] for each in plugins):
            raise CannotLoadError(path)
        return [each["type"] for each in plugins]
    raise CannotLoadError("nothing is there")


def is_dir(path):
    return path.is_dir() and not path.is_symlink()


def works(directory, bin_dir):
    """Say whether a pod would get its networks from Multus: the plugin is called, and is there."""
    try:
        types = loaded(directory)
    except CannotLoadError:
        return False
    program = bin_dir / types[0]
    kubeconfig = directory / "multus.d/multus.kubeconfig"
    return types[0] == "multus" and program.is_file() and bool(program.stat().st_mode & 0o111) and kubeconfig.is_file()


def put(directory, files):
    """Write files, given by name, into a directory, over what is there; a directory that is there stays."""
    for name, content in files.items():
        path = directory / name
        if is_dir(path):
            continue
        path.unlink(missing_ok=True)
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content)
