"""The preflight: whether all is there that any phase of a run will need."""
