"""The provider that needs no Docker: each node is a set of Linux namespaces on this machine."""
