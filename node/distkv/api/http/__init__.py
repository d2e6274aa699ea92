"""The HTTP doors: clients and administration."""
