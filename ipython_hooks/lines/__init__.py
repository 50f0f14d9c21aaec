"""What the lines of a command used: the statements of a cell one by one, or the lines of functions."""
