"""Messages to bytes and back, versioned."""
