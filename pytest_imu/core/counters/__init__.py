"""Sources that count events."""
