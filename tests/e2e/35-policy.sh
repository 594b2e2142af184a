#!/usr/bin/env bash
# What the token on a node's disk may change: without the policy the label of any pod, with it the network-status of the
# node's own pods.
. "$(dirname "$0")/lib.sh"

node=$(nodes | sed -n 1p)
stolen=$(mktemp)
trap 'rm -f "$stolen"' EXIT

# Whoever has read the node's disk: its token, and nothing else of ours.
steal() {
  local token
  token=$(on_node "$node" "sed -nE 's/^ *token: *\"?([^\"]*)\"?\$/\1/p' $CONF_DIR/multus.d/multus.kubeconfig")
  [ -n "$token" ] || fail "no token in the kubeconfig of $node"
  kubectl config view --raw --minify --flatten >"$stolen"
  kubectl --kubeconfig="$stolen" config unset users >/dev/null
  kubectl --kubeconfig="$stolen" config set-credentials stolen --token="$token" >/dev/null
  kubectl --kubeconfig="$stolen" config set-context --current --user=stolen >/dev/null
}

# Let the thief write the status of a pod, with a label or an annotation more; print what the API server said.
write_status() {
  local pod=$1 what=$2 change=$3 document
  document=$(kubectl -n "$NAMESPACE" get pod "$pod" -o json)
  document=$(kubectl "$what" --local --overwrite -o json -f - "$change" <<<"$document")
  # Raw, because kubectl would change an annotation of its own with it.
  kubectl --kubeconfig="$stolen" replace --raw "/api/v1/namespaces/$NAMESPACE/pods/$pod/status" -f - <<<"$document" 2>&1
}

written() { write_status "$@" >/dev/null; }

refused() {
  local said
  ! said=$(write_status "$@") || return 1
  grep -q "$reason" <<<"$said"
}

policy() { cat "${DEPLOYMENTS:-$ROOT/deployments}/multus-policy.yml"; }

steal
say "a pod that is on no node, and so on none of this token's"
kubectl -n "$NAMESPACE" apply -f - <<EOF
apiVersion: v1
kind: Pod
metadata:
  name: elsewhere
spec:
  nodeSelector:
    multus-e2e: nowhere
  containers:
    - name: shell
      image: $IMAGE
EOF

say "without the policy the token labels it"
policy | kubectl delete --ignore-not-found -f -
until_true "a label by the stolen token" written elsewhere label stolen=yes
labelled=$(kubectl -n "$NAMESPACE" get pod elsewhere -o jsonpath='{.metadata.labels.stolen}')
[ "$labelled" = yes ] || fail "the token cannot label a pod even without the policy: this step shows nothing"

say "with the policy it does not"
policy | kubectl apply -f -
reason="Multus's token of node '$node' is for that node"
until_true "the refusal of a label on a pod that is elsewhere" refused elsewhere label stolen=again

say "pods of this node get their networks as before, and the token can change nothing else of them"
start_pod text "$node" second
has_interface text net1
status=$(kubectl -n "$NAMESPACE" get pod text -o jsonpath='{.metadata.annotations.k8s\.v1\.cni\.cncf\.io/network-status}')
grep -q '"net1"' <<<"$status" || fail "the pod's network-status does not tell of net1"
reason="must not change labels"
until_true "the refusal of a label" refused text label stolen=yes
reason="must not change annotations"
until_true "the refusal of an annotation" refused text annotate stolen=yes
until_true "the network-status, which is what the token is for" \
  written text annotate 'k8s.v1.cni.cncf.io/network-status=[]'
stop_pod text
kubectl -n "$NAMESPACE" delete pod elsewhere --grace-period=0 --force
