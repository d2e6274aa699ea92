"""One member of a cluster: both planes together, without I/O."""
