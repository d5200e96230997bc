"""What is told of a run while it goes on: who watches it measures, shows or answers for its health."""

from bartizan_connector.base.errors import Retry
from bartizan_connector.stream.flight import Flight
from bartizan_connector.stream.report import Report


class Watch:
    """Told by the thread that called `run`, but for `waits`, which any step tells. Here it does nothing."""

    def turns(self, preparing: int, prepared: int, writing: int) -> None:
        """The run is alive; so many batches are at each place. Told at least every second while nothing is waited for
        in that thread."""

    def written(self, flight: Flight) -> None:
        """What the batch holds is in the store; its commit follows."""

    def left(self, flight: Flight, share: Report, size: int) -> None:
        """The batch is done with; the next one shall have at most `size` messages."""

    def waits(self, error: Retry | None) -> None:
        """Something cannot be reached, and is tried again later; None: it answered. Told each time."""


class Several(Watch):
    """Tells each of them."""

    def __init__(self, *watches: Watch) -> None:
        self._watches = watches

    def turns(self, preparing: int, prepared: int, writing: int) -> None:
        for watch in self._watches:
            watch.turns(preparing, prepared, writing)

    def written(self, flight: Flight) -> None:
        for watch in self._watches:
            watch.written(flight)

    def left(self, flight: Flight, share: Report, size: int) -> None:
        for watch in self._watches:
            watch.left(flight, share, size)

    def waits(self, error: Retry | None) -> None:
        for watch in self._watches:
            watch.waits(error)


NOBODY = Watch()
