#!/usr/bin/env bash
# Take away on every node what the entrypoint has written, and see it come back.
. "$(dirname "$0")/lib.sh"

there() { on_node "$1" "test -s $2"; }

for node in $(nodes); do
  for path in "$BIN_DIR/multus" "$CONF_DIR/multus.d/multus.kubeconfig"; do
    say "removing $path on $node"
    on_node "$node" "rm $path"
    until_true "$path" there "$node" "$path"
  done
  say "removing the configuration on $node"
  conf=$(on_node "$node" "ls $CONF_DIR/00-multus.conf*")
  on_node "$node" "rm $conf"
  until_true "$conf" there "$node" "$conf"
done
check_all
