"""A run as one HTML page: rows in, text out; needs Jinja2."""
