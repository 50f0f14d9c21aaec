"""Takes each test's numbers, in the process that runs it."""
