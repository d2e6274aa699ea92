"""Storage engines behind one narrow interface."""
