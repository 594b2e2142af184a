"""The subcommand `check`: look at the node and the cluster, change nothing, say what is well and what is not."""
