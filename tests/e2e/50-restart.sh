#!/usr/bin/env bash
# Restart the DaemonSet again and again while pods with a second interface come and go: no sandbox may fail.
. "$(dirname "$0")/lib.sh"
RESTARTS="${RESTARTS:-5}"
WORKERS="${WORKERS:-3}" # pods at a time on each node

# Let pods come and go under one name until the file is there; a failure ends the worker.
come_and_go() {
  local name=$1 node=$2 ending=$3
  while [ ! -e "$ending" ]; do
    start_pod "$name" "$node" second
    has_interface "$name" net1
    stop_pod "$name"
  done
}

failed_sandboxes() {
  kubectl -n "$NAMESPACE" get events --field-selector reason=FailedCreatePodSandBox \
    -o jsonpath='{range .items[*]}{.involvedObject.name}: {.message}{"\n"}{end}'
}

until_true "the end of older pods" settled
scratch=$(mktemp -d)
# Whatever comes, the workers end.
trap 'touch "$scratch/ending"' EXIT
kubectl -n "$NAMESPACE" delete events --all
workers=()
for node in $(nodes); do
  for number in $(seq "$WORKERS"); do
    come_and_go "come-and-go-$node-$number" "$node" "$scratch/ending" >"$scratch/$node-$number" 2>&1 &
    workers+=("$!")
  done
done

for number in $(seq "$RESTARTS"); do
  say "restart $number of $RESTARTS"
  kubectl -n kube-system rollout restart daemonset/kube-multus-ds
  rolled_out kube-multus-ds
done

touch "$scratch/ending"
lost=0
for worker in "${workers[@]}"; do wait "$worker" || lost=$((lost + 1)); done
failed=$(failed_sandboxes)
if [ "$lost" != 0 ]; then
  tail -n 5 "$scratch"/*-*
  fail "$lost workers saw a pod that did not start with its interface, or did not end"
fi
[ -z "$failed" ] || fail "sandboxes that could not be made at the first attempt: $failed"
say "$(cat "$scratch"/*-* | grep -c deleted) pods came and went"
until_true "the end of older pods" settled
check_all
