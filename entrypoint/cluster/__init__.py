"""The Kubernetes client, as little of it as possible."""
