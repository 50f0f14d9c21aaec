"""The lines behind a peak: what each line of a run kept and needed."""
