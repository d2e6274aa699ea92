"""Container images written file by file, without a daemon: the same input gives the same bytes."""
