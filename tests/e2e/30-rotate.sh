#!/usr/bin/env bash
# Let kubelet rotate the token for real and see that Multus goes on. Takes about nine minutes: ten is the shortest life
# that a token can have, and kubelet renews it after eight.
. "$(dirname "$0")/lib.sh"
PATIENCE=$((PATIENCE + 600))

token_of() { on_node "$1" "grep token: $CONF_DIR/multus.d/multus.kubeconfig" | sha256sum; }

differs() { [ "$(token_of "$1")" != "$2" ]; }

say "tokens of ten minutes"
manifest "$MANIFEST" | sed -E 's/expirationSeconds: [0-9]+/expirationSeconds: 600/' | kubectl apply -f -
rolled_out kube-multus-ds

declare -A before
for node in $(nodes); do before[$node]=$(token_of "$node"); done
for node in "${!before[@]}"; do
  say "waiting for a new token on $node"
  until_true "a new token" differs "$node" "${before[$node]}"
done
check_all
for node in "${!before[@]}"; do
  start_pod rotated "$node" second
  has_interface rotated net1
  stop_pod rotated
done

say "tokens as they were"
manifest "$MANIFEST" | kubectl apply -f -
rolled_out kube-multus-ds
