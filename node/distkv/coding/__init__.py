"""Erasure coding: values to shards and back."""
