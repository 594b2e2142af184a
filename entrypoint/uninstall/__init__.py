"""The subcommand `uninstall`: take away from a node what was installed, in the order that never breaks it."""
