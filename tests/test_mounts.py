import os

import pytest

from entrypoint.disk import mounts
from entrypoint.disk.mounts import KUBECONFIG

DIRECTORY = "/host/etc/cni/net.d"
USUAL = "/etc/cni/net.d"
K3S = "/var/lib/rancher/k3s/agent/etc/cni/net.d"
MICROK8S = "/var/snap/microk8s/current/args/cni-network"


def mountinfo(line):
    """What a container with one more mount sees."""
    return f"""\
1201 1100 0:301 / / ro,relatime - overlay overlay rw,lowerdir=/l,upperdir=/var/lib/containerd/fs,workdir=/w
1202 1201 0:304 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
1210 1201 8:1 /var/lib/kubelet/pods/6f/etc-hosts /etc/hosts rw,relatime - ext4 /dev/sda1 rw
{line}
1230 1201 0:289 / /var/run/secrets/kubernetes.io/serviceaccount ro,relatime - tmpfs tmpfs rw,size=51200k
"""


ROOTS = {
    # The path within the file system, and what it is on.
    "the host's root": (USUAL, "8:1 {} ext4 /dev/sda1"),
    "an overlay over /etc": ("/cni/net.d", "0:40 {} overlay overlay"),
    "an own partition for /etc/cni": ("/net.d", "8:5 {} ext4 /dev/sda5"),
    "a btrfs subvolume of Ubuntu": ("/@/etc/cni/net.d", "0:31 {} btrfs /dev/sda2"),
    "a btrfs subvolume of Fedora": ("/root/etc/cni/net.d", "0:31 {} btrfs /dev/sda2"),
    "a snapshot of openSUSE": ("/@/.snapshots/1/snapshot/etc/cni/net.d", "0:31 {} btrfs /dev/sda2"),
    "an OSTree deployment": ("/ostree/deploy/fedora-coreos/deploy/4b1d.0/etc/cni/net.d", "8:4 {} xfs /dev/sda4"),
    "a node in a container": ("/var/lib/lxd/containers/node-1/rootfs/etc/cni/net.d", "8:1 {} ext4 /dev/sda1"),
    "a bind mount of the host's": ("/data/cni", "8:7 {} xfs /dev/sdb1"),
    "a link of the host's": ("/var/etc/cni/net.d", "8:1 {} ext4 /dev/sda1"),
}


def source(root, rest="8:1 {} ext4 /dev/sda1"):
    device, _, kind = rest.partition(" {} ")
    line = f"1220 1201 {device} {root} {DIRECTORY} rw,relatime master:1 - {kind} rw"
    return mounts.source(mountinfo(line), DIRECTORY)


@pytest.mark.parametrize(("root", "rest"), ROOTS.values(), ids=ROOTS)
def test_where_the_usual_directory_may_be_mounted_nothing_is_said(root, rest):
    assert source(root, rest) == root
    assert mounts.astray(source(root, rest), USUAL + KUBECONFIG) is None


ELSEWHERE = {
    "k3s": (K3S, K3S),
    "k3s, /var on its own partition": ("/lib/rancher/k3s/agent/etc/cni/net.d", K3S),
    "k3s, its directory on its own partition": ("/agent/etc/cni/net.d", K3S),
    "k3s, a btrfs subvolume": ("/@" + K3S, K3S),
    "k3s, a btrfs subvolume for /var": ("/@var/lib/rancher/k3s/agent/etc/cni/net.d", K3S),
    "k3d, a volume": ("/var/lib/docker/volumes/0f/_data/agent/etc/cni/net.d", K3S),
    "RKE2's own": ("/var/lib/rancher/rke2/agent/etc/cni/net.d", "/var/lib/rancher/rke2/agent/etc/cni/net.d"),
    "MicroK8s, whose link the runtime has followed": ("/var/snap/microk8s/7394/args/cni-network", MICROK8S),
    "MicroK8s, /var on its own partition": ("/snap/microk8s/7394/args/cni-network", MICROK8S),
    "OpenShift": ("/ostree/deploy/rhcos/deploy/9a.0/etc/kubernetes/cni/net.d", "/etc/kubernetes/cni/net.d"),
    "minikube": ("/etc/cni/net.mk", "/etc/cni/net.mk"),
}


@pytest.mark.parametrize(("root", "on_host"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_a_path_that_does_not_follow_is_told_with_where_the_file_usually_is(root, on_host):
    assert mounts.astray(source(root), USUAL + KUBECONFIG) == on_host + KUBECONFIG


@pytest.mark.parametrize(("root", "on_host"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_a_path_that_follows_is_right_wherever_the_partitions_are(root, on_host):
    assert mounts.astray(source(root), on_host + KUBECONFIG) is None


def test_k3s_with_another_data_directory_is_told_the_usual_one_and_its_own_is_right():
    own = "/data/kube/agent/etc/cni/net.d"
    assert mounts.astray(source(own), USUAL + KUBECONFIG) == K3S + KUBECONFIG
    assert mounts.astray(source(own), own + KUBECONFIG) is None


@pytest.mark.parametrize("kubeconfig", ["/etc/kubernetes/admin.conf", "/var/lib/multus/kubeconfig", ""])
def test_a_kubeconfig_that_is_not_ours_may_be_anywhere(kubeconfig):
    assert mounts.astray(source(K3S), kubeconfig) is None


# ---- mountinfo ----


def test_what_is_mounted_above_and_the_way_down_make_the_path():
    whole_host = mountinfo("1220 1201 8:1 / /host rw - ext4 /dev/sda1 rw")
    assert mounts.source(whole_host, DIRECTORY) == USUAL
    beside = mountinfo("1220 1201 8:1 /elsewhere /host/etc/cni/net rw - ext4 /dev/sda1 rw")
    assert mounts.source(beside, DIRECTORY) == DIRECTORY  # of the container itself
    deeper = whole_host + "1240 1220 8:5 / /host/etc rw - ext4 /dev/sda5 rw\n"
    assert mounts.source(deeper, DIRECTORY) == "/cni/net.d"


def test_of_mounts_on_each_other_the_last_counts():
    twice = mountinfo(f"1220 1201 8:1 {USUAL} {DIRECTORY} rw - ext4 /dev/sda1 rw") + (
        f"1250 1220 8:1 {K3S} {DIRECTORY} rw - ext4 /dev/sda1 rw\n"
    )
    assert mounts.source(twice, DIRECTORY) == K3S


def test_escapes_are_read():
    assert mounts.source("1 0 8:1 /a\\040b\\134c /m\\040n rw - ext4 /dev/sda1 rw", "/m n/x") == "/a b\\c/x"


@pytest.mark.parametrize("text", ["", "nonsense", "1 2 3", "1 0 0:4 net:[4026531840] /run/netns/x rw - nsfs nsfs rw"])
def test_what_tells_nothing_is_no_reason_to_say_something(text):
    assert mounts.source(text, DIRECTORY) is None
    assert mounts.astray(None, USUAL + KUBECONFIG) is None


def test_the_kernels_own_file_is_understood(tmp_path):
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        text = file.read()
    found = mounts.source(text, str(tmp_path))
    assert found is not None
    assert found.endswith(os.path.basename(tmp_path))
