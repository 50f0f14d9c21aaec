"""Other processes: this one's children."""
