"""How many messages a batch has, so that it takes about so long, whatever their length and whatever runs the towers.

The encode loop bounds the tokens of each call to a tower by itself. A batch is what is written and committed together,
so its size is how soon changes can be found, how long an end takes, and how much is done again after a crash. It begins
at the most, is halved when a batch took more than twice the time (a slow tower, a store that had to be waited for), and
is doubled when a full one took less than half of it.
"""

SECONDS = 5.0
"""What a batch shall take at its slowest step; the steps of several batches go on at the same time."""
LEAST = 8


class Pace:
    """The size of the batches to come."""

    def __init__(self, most: int, seconds: float = SECONDS) -> None:
        self._most = most
        self._seconds = seconds
        self.size = most

    def took(self, messages: int, seconds: float) -> int:
        """A batch of so many messages took so long at its slowest step: the size of the next one."""
        if seconds > 2 * self._seconds:
            self.size = max(min(LEAST, self._most), min(self.size, messages) // 2)
        elif seconds < self._seconds / 2 and messages >= self.size:
            self.size = min(self._most, self.size * 2)
        return self.size
