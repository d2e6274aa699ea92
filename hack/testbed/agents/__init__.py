"""Two controllers of the test bed: one enforces NetworkPolicy, one makes volumes of a real size."""
