# shellcheck shell=bash
# What the steps share. Needs KUBECONFIG, IMAGE and NODE_SHELL, see README.md.
#
# Nothing in a pipe may stop reading early (grep -q, head): the writer would die of SIGPIPE, and pipefail take that for
# a failure. What is searched is kept in a variable first.
set -euo pipefail

: "${KUBECONFIG:?the kubeconfig of the cluster to test on, as an administrator}"
: "${IMAGE:?the image to test; the nodes must be able to pull it, or have it}"
: "${NODE_SHELL:?a command that takes a node and a command to run there as root, such as "docker exec -i" or "ssh -l root"}"
BIN_DIR="${BIN_DIR:-/opt/cni/bin}"
CONF_DIR="${CONF_DIR:-/etc/cni/net.d}"
MANIFEST="${MANIFEST:-multus-daemonset.yml}"
NAMESPACE=multus-e2e
PATIENCE="${PATIENCE:-180}" # seconds
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"

say() { printf '\n== %s\n' "$*"; }

fail() {
  printf 'FAILED: %s\n' "$*" >&2
  exit 1
}

# Print a manifest of deployments/, or what kubectl makes of a directory there, with the image to test.
manifest() {
  local path="${DEPLOYMENTS:-$ROOT/deployments}/$1"
  if [ -d "$path" ]; then kubectl kustomize "$path"; else cat "$path"; fi | sed -E "s#^( *image:).*#\1 $IMAGE#"
}

# Run a line of shell on a node, as root. It goes in by standard input: ssh and `docker exec` differ in how they quote.
on_node() {
  # NODE_SHELL is a line of shell: it is split as one, and what has a space in it can be quoted.
  eval "$NODE_SHELL \"\$1\" sh -s" <<<"$2"
}

# The nodes that have a pod of the DaemonSet, one a line.
nodes() { kubectl -n kube-system get pods -l name=multus -o jsonpath='{range .items[*]}{.spec.nodeName}{"\n"}{end}'; }

pod_on() { kubectl -n kube-system get pods -l name=multus --field-selector "spec.nodeName=$1" -o name | sed -n 1p; }

# No node has the pod of one rollout beside that of another any more.
settled() { [ -z "$(nodes | sort | uniq -d)" ]; }

# Run a command again and again until it succeeds.
until_true() {
  local what=$1 end=$((SECONDS + PATIENCE))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || fail "$what did not come within $PATIENCE s"
    sleep 1
  done
}

rolled_out() { kubectl -n kube-system rollout status "daemonset/$1" --timeout="${PATIENCE}s"; }

check_all() {
  local node
  for node in $(nodes); do
    say "check on $node"
    kubectl -n kube-system exec "$(pod_on "$node")" -- multus-entrypoint check
  done
}

# Start a pod on a node with an annotation (empty: none), and wait for it.
start_pod() {
  local name=$1 node=$2 networks=$3
  kubectl -n "$NAMESPACE" apply -f - <<EOF
apiVersion: v1
kind: Pod
metadata:
  name: $name
  annotations:
    k8s.v1.cni.cncf.io/networks: '$networks'
spec:
  nodeName: $node
  terminationGracePeriodSeconds: 0
  tolerations:
    - operator: Exists
  containers:
    - name: shell
      # The image under test is on the nodes already, and has a shell.
      image: $IMAGE
      command: ["/usr/bin/sleep", "infinity"]
EOF
  kubectl -n "$NAMESPACE" wait --for=condition=Ready "pod/$name" --timeout="${PATIENCE}s"
}

stop_pod() { kubectl -n "$NAMESPACE" delete pod "$1" --wait --timeout="${PATIENCE}s"; }

# The names of a pod's interfaces, one a line; the image has no `ip`.
interfaces() { kubectl -n "$NAMESPACE" exec "$1" -- ls /sys/class/net; }

has_interface() {
  local found
  found=$(interfaces "$1")
  grep -qx "$2" <<<"$found" || fail "pod $1 has no interface $2"
}

lacks_interface() {
  local found
  found=$(interfaces "$1")
  ! grep -qx "$2" <<<"$found" || fail "pod $1 has an interface $2"
}
