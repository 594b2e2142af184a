"""CNI documents: pure, no disk."""
