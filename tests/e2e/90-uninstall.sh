#!/usr/bin/env bash
# Take Multus off the nodes as docs/uninstall.md says, and see that pods still start, also while a node waits for a pod with a
# further network to go. FORCE=1: although pods are left.
. "$(dirname "$0")/lib.sh"

waits() {
  local found
  found=$(kubectl -n kube-system logs -l name=multus-uninstall -c uninstall --tail=-1)
  grep -q "$NAMESPACE/staying" <<<"$found"
}

mapfile -t cleaned < <(nodes)
[ "${#cleaned[@]}" -gt 0 ] || fail "Multus is not installed"
[ "${FORCE:-}" = 1 ] || start_pod staying "${cleaned[0]}" second
kubectl -n kube-system delete daemonset kube-multus-ds --wait
kubectl -n kube-system wait --for=delete pod -l name=multus --timeout="${PATIENCE}s" # and with it the installer's token
case $MANIFEST in
  *.yml) uninstaller=$(manifest multus-uninstall.yml) ;;
  *) uninstaller=$(manifest "$MANIFEST/uninstall") ;;
esac
if [ "${FORCE:-}" = 1 ]; then
  uninstaller=$(sed -E 's#^( *)- "?--multus-data-dir=.*#&\n\1- "--force"#' <<<"$uninstaller")
fi
printf '%s\n' "$uninstaller" | kubectl apply -f -
if [ "${FORCE:-}" != 1 ]; then
  until_true "word of the pod that is waited for" waits
  sleep "${TOKEN_CACHED:-12}" # seconds for which the API server may still take the installer's token
  start_pod meanwhile "${cleaned[0]}" ''
  has_interface meanwhile eth0
  stop_pod meanwhile
  stop_pod staying
fi
if ! rolled_out multus-uninstall; then
  kubectl -n kube-system logs -l name=multus-uninstall -c uninstall --prefix --tail=20
  fail "a node is not clean"
fi
kubectl -n kube-system logs -l name=multus-uninstall -c uninstall --prefix --tail=20
printf '%s\n' "$uninstaller" | kubectl delete -f -

for node in "${cleaned[@]}"; do
  left=$(on_node "$node" "ls -d $CONF_DIR/*multus* $BIN_DIR/multus 2>/dev/null || true")
  [ -z "$left" ] || fail "left on $node: $left"
  start_pod after "$node" ''
  has_interface after eth0
  stop_pod after
done
kubectl delete namespace "$NAMESPACE" --wait --timeout="${PATIENCE}s"
manifest "$MANIFEST" | kubectl delete --ignore-not-found -f -
kubectl delete --ignore-not-found -f "$ROOT/deployments/multus-policy.yml"
say "the cluster is as it was"
