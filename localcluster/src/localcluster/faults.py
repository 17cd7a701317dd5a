"""The one exception a user sees: a single clear sentence, printed without a traceback."""


class Fault(Exception):
    """What is wrong and what to do about it, in one sentence."""
