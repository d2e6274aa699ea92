"""Doors for clients: RESP, HTTP, and the gateway link."""
