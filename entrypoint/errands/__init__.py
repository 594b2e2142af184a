"""What is done beside the node's files: short-lived processes of our own."""
