"""Hard limits: the allocation that goes past one is refused, and the test that asked for it fails."""
