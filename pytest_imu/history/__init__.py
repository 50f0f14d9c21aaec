"""Runs beside runs: what `--imu-json` wrote is read again, compared, merged and put into the source."""
