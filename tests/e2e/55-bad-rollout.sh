#!/usr/bin/env bash
# Roll out what cannot work: the rollout stops, the pods that were there go on, and pods get their interfaces. Then undo it.
# By the commands of docs/troubleshooting.md, which also must know the state of the new pod.
. "$(dirname "$0")/lib.sh"
STOPS_WITHIN="${STOPS_WITHIN:-20}" # seconds: a good rollout needs fewer on a node

argument() { echo '[{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "'"$1"'"}]'; }

# What docs/troubleshooting.md says about this.
page() { sed -n '/^## Rollout status does not end/,/^## /p' "$ROOT/docs/troubleshooting.md"; }

# Run a command of the page, by its beginning.
as_the_page_says() { bash -euc "$(page | sed -n "/^kubectl -n kube-system $1 /p")"; }

# The page has a row for the state of each pod that is not ready.
is_explained() {
  local states state
  states=$(as_the_page_says get | awk 'NR > 1 && $2 != "1/1" {print $3}')
  [ -n "$states" ] || fail "the page's command shows no pod that is not ready"
  for state in $states; do
    [ -n "$(page | sed -n "/^| .*\`$state\`/p")" ] || fail "the page has no row for $state"
  done
}

# Each of the pods that were there before is ready, though another stands beside it.
stops() {
  local what=$1 patch=$2 node pod
  say "a rollout with $what"
  kubectl -n kube-system patch daemonset kube-multus-ds --type=json -p "$patch"
  ! kubectl -n kube-system rollout status daemonset/kube-multus-ds --timeout="${STOPS_WITHIN}s" ||
    fail "a rollout with $what went through"
  is_explained
  for node in "${!before[@]}"; do
    pod=${before[$node]}
    kubectl -n kube-system wait --for=condition=Ready "$pod" --timeout=5s
    start_pod during "$node" second
    has_interface during net1
    stop_pod during
  done
}

undo() {
  as_the_page_says 'rollout undo'
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
stops "an image that nobody has" \
  '[{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "localhost/none-such:1"}]'
undo
stops "a network that never comes" "$(argument --multus-master-cni-file-name=99-never.conf)"
undo
stops "a pod that is never ready" \
  '[{"op": "replace", "path": "/spec/template/spec/containers/0/readinessProbe/exec/command", "value": ["/usr/bin/false"]}]'
until_true "the warning of check in a pod beside a newer one" some_pod_warns
undo
until_true "the end of newer pods" settled
check_all
