"""The one way to the API server and to the nodes' admin listeners."""
