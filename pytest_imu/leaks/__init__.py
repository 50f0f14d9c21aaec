"""Growth a call: calls a test's body again and again, and finds what is left behind each time."""
