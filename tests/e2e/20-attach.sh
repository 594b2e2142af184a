#!/usr/bin/env bash
# On every node: pods that get a second interface, by a text and by a JSON annotation, and a pod that asks for none.
. "$(dirname "$0")/lib.sh"

kubectl create namespace "$NAMESPACE" --dry-run=client -o yaml | kubectl apply -f -
say "a network made of plugins that every cluster has: ptp and host-local"
kubectl -n "$NAMESPACE" apply -f - <<'EOF'
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata:
  name: second
spec:
  config: '{"cniVersion": "0.3.1", "name": "second", "type": "ptp",
            "ipam": {"type": "host-local", "subnet": "10.222.0.0/24"}}'
EOF
until_true "the service account of the namespace" kubectl -n "$NAMESPACE" get serviceaccount default -o name

for node in $(nodes); do
  say "pods on $node"
  start_pod text "$node" second
  has_interface text net1
  start_pod json "$node" '[{"name": "second", "interface": "uplink"}]'
  has_interface json uplink
  start_pod plain "$node" ''
  has_interface plain eth0
  lacks_interface plain net1
  status=$(kubectl -n "$NAMESPACE" get pod text \
    -o jsonpath='{.metadata.annotations.k8s\.v1\.cni\.cncf\.io/network-status}')
  grep -q '"net1"' <<<"$status" || fail "the pod's network-status does not tell of net1"
  for pod in text json plain; do stop_pod "$pod"; done
done
