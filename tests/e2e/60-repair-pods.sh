#!/usr/bin/env bash
# Let pods start on a node without Multus, bring it back with --repair-pods, and see what is done about them.
. "$(dirname "$0")/lib.sh"

# The manifest with everything switched on that is off in it: the rights are those that it has.
switched_on=$(mktemp -d)
trap 'rm -rf "$switched_on"' EXIT
cp -r "$ROOT/deployments/." "$switched_on"
sed -i -E 's/^#( {2})/\1/' "$switched_on/multus-daemonset.yml" "$switched_on/base/multus-daemonset.yml"

install_with() {
  local mode=$1
  say "Multus with --repair-pods=$mode"
  DEPLOYMENTS=$switched_on manifest "$MANIFEST" | sed "s/--repair-pods=delete/--repair-pods=$mode/" | kubectl apply -f -
  rolled_out kube-multus-ds
}

pods_without() { kubectl -n "$NAMESPACE" get pods -l app=without -o name; }

uid_of() { kubectl -n "$NAMESPACE" get pod "$1" -o jsonpath='{.metadata.uid}'; }

reported() {
  local found
  found=$(kubectl -n "$NAMESPACE" get events --field-selector reason=NetworksMissing \
    -o jsonpath='{range .items[*]}{.involvedObject.name}{"\n"}{end}')
  [ "$(sort -u <<<"$found" | wc -l)" = 3 ]
}

says() {
  local found
  found=$(kubectl -n kube-system logs "$(pod_on "$node")")
  grep -q "$1" <<<"$found"
}

# Both pods are there again, with their second interface.
repaired() {
  local pod found pods
  pods=$(pods_without)
  [ "$(wc -l <<<"$pods")" = 2 ] || return 1
  for pod in $pods; do
    found=$(interfaces "$pod") && grep -qx net1 <<<"$found" || return 1
  done
}

mapfile -t emptied < <(nodes)
node=${emptied[0]}
say "Multus away from the nodes"
kubectl -n kube-system delete daemonset kube-multus-ds --wait
kubectl -n kube-system wait --for=delete pod -l name=multus --timeout="${PATIENCE}s" # or it puts back what is removed
for each in "${emptied[@]}"; do on_node "$each" "rm -f $CONF_DIR/00-multus.conf $CONF_DIR/00-multus.conflist"; done

say "pods on $node that ask for a network and start without: two of a Deployment, and one that nothing makes again"
kubectl -n "$NAMESPACE" apply -f - <<EOF
apiVersion: apps/v1
kind: Deployment
metadata:
  name: without
spec:
  replicas: 2
  selector:
    matchLabels:
      app: without
  template:
    metadata:
      labels:
        app: without
      annotations:
        k8s.v1.cni.cncf.io/networks: second
    spec:
      nodeName: $node
      terminationGracePeriodSeconds: 0
      tolerations:
        - operator: Exists
      containers:
        - name: shell
          image: $IMAGE
          command: ["/usr/bin/sleep", "infinity"]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: without
spec:
  minAvailable: 2
  selector:
    matchLabels:
      app: without
EOF
start_pod bare "$node" second
kubectl -n "$NAMESPACE" rollout status deployment/without --timeout="${PATIENCE}s"
lacks_interface bare net1
first=$(pods_without)
for pod in $first; do lacks_interface "$pod" net1; done
bare=$(uid_of bare)

install_with report
until_true "an Event on each of the three pods" reported
[ "$(pods_without)" = "$first" ] || fail "a pod was evicted although only a report was asked for"

install_with delete
until_true "word of the disruption budget" says "disruption budget"
[ "$(pods_without)" = "$first" ] || fail "a pod was evicted against its disruption budget"
say "a budget that lets one pod go at a time"
kubectl -n "$NAMESPACE" patch poddisruptionbudget without --type=merge -p '{"spec": {"minAvailable": 1}}'
until_true "the second interface of the pods that were made again" repaired
until_true "word of the pod that is left as it is" says "bare (.*nothing would make it again"
[ "$(uid_of bare)" = "$bare" ] || fail "the bare pod is another one"
lacks_interface bare net1

stop_pod bare
kubectl -n "$NAMESPACE" delete deployment/without poddisruptionbudget/without --wait
say "Multus as it was"
manifest "$MANIFEST" | kubectl apply -f -
rolled_out kube-multus-ds
