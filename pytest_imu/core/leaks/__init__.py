"""Growth a call: what stands after each of several calls, counted exactly, and when it is a leak."""
