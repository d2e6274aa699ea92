"""The replicated state machine: what the log means."""
