"""Laptop mode: a whole cluster on one machine, and its owner."""
