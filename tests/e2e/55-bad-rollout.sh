#!/usr/bin/env bash
# Roll out what cannot work: the rollout stops, the pods that were there go on, and pods get their interfaces. Then undo it.
. "$(dirname "$0")/lib.sh"
STOPS_WITHIN="${STOPS_WITHIN:-20}" # seconds: a good rollout needs fewer on a node

argument() { echo '[{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "'"$1"'"}]'; }

# Each of the pods that were there before is ready, though another stands beside it.
stops() {
  local what=$1 patch=$2 node pod
  say "a rollout with $what"
  kubectl -n kube-system patch daemonset kube-multus-ds --type=json -p "$patch"
  ! kubectl -n kube-system rollout status daemonset/kube-multus-ds --timeout="${STOPS_WITHIN}s" ||
    fail "a rollout with $what went through"
  for node in "${!before[@]}"; do
    pod=${before[$node]}
    kubectl -n kube-system wait --for=condition=Ready "$pod" --timeout=5s
    start_pod during "$node" second
    has_interface during net1
    stop_pod during
  done
}

undo() {
  kubectl -n kube-system rollout undo daemonset/kube-multus-ds
  rolled_out kube-multus-ds
}

# `check` in a pod that a newer one has overtaken warns of that, and fails nothing over it.
warns_of_newer_one() {
  local found
  found=$(kubectl -n kube-system exec "$1" -- multus-entrypoint check) && grep -q '^warn *node.owner' <<<"$found"
}

some_pod_warns() {
  local pod
  for pod in "${before[@]}"; do
    ! warns_of_newer_one "$pod" || return 0
  done
  return 1
}

until_true "the end of older pods" settled
declare -A before
for node in $(nodes); do before[$node]=$(pod_on "$node"); done

stops "a wrong flag" "$(argument --no-such-flag)"
undo
stops "a network that never comes" "$(argument --multus-master-cni-file-name=99-never.conf)"
undo
stops "a pod that is never ready" \
  '[{"op": "replace", "path": "/spec/template/spec/containers/0/readinessProbe/exec/command", "value": ["/usr/bin/false"]}]'
until_true "the warning of check in a pod beside a newer one" some_pod_warns
undo
until_true "the end of newer pods" settled
check_all
