"""Reliable, encrypted UDP between peers."""
