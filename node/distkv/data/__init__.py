"""Data plane: dispersing, reading, dropping and repairing shards; no I/O."""
