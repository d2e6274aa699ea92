"""Pure decisions: (resource, what was observed) -> ordered steps, conditions, status."""
