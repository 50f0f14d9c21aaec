"""The verbs of `pytest-imu` that work on files of `--imu-json`: `arguments`, and how each is `run`."""
