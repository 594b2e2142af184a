"""Installs Multus CNI on a Kubernetes node and keeps what it installed true until the pod ends."""

__version__ = "0.1.0"
