"""Being asked to stop at a certain moment."""


class StopAfter:
    """Asks to stop at the n-th question."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0
