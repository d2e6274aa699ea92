"""Deterministic simulation: whole worlds from one seed."""
