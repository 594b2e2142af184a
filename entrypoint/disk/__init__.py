"""Bytes: looking at files, writing whole ones, watching for changes."""
