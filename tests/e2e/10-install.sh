#!/usr/bin/env bash
# Apply the manifest, wait for every node, and let `check` look at each.
. "$(dirname "$0")/lib.sh"

say "applying $MANIFEST with $IMAGE"
manifest "$MANIFEST" | kubectl apply -f -
kubectl apply -f "$ROOT/deployments/multus-policy.yml" # every other step goes through with it
rolled_out kube-multus-ds
check_all
for node in $(nodes); do
  on_node "$node" "ls -l $CONF_DIR $BIN_DIR/multus"
done
