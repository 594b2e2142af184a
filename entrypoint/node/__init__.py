"""What is kept true on the node."""
