"""How long tests wait. Limits find what hangs; how fast a machine is, and what else it does, is not tested."""

HANGS = 300.0  # seconds; less than pytest's own limit (pyproject.toml), so that the message says what was waited for
