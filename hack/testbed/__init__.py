"""The test bed: a real Kubernetes of several nodes, on kind or without any container daemon."""
