"""Says what this machine can measure."""
