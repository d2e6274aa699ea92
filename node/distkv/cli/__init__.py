"""The distkv command."""
