"""The measurement core: it knows neither pytest nor IPython, and prints nothing."""
