"""Virtual time for everything that waits."""

from videogen_testing.virtual_time import virtual_loop

__all__ = ["virtual_loop"]
