"""The moment by which vectors are wanted, as `time.monotonic` tells it; None: whenever they come."""

import time

from bartizan_connector.base.errors import Retry

TOO_LATE = "encoding took longer than its timeout"


def heed(deadline: float | None) -> None:
    """Raise Retry where it has passed."""
    if deadline is not None and time.monotonic() > deadline:
        raise Retry(TOO_LATE)
