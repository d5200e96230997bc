"""SIGTERM: it is told to whoever waits, in whatever the signal interrupts."""

import signal

from bartizan_connector.base.stopping import told_to_stop


def test_sigterm_is_told_and_what_was_there_before_is_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with told_to_stop() as stop:
        assert not stop.is_set()
        signal.raise_signal(signal.SIGTERM)
        assert stop.wait(10)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_in_the_middle_of_waiting_or_of_another_signal_is_told() -> None:
    with told_to_stop() as stop:
        with stop._cond:  # what `wait` and `set` hold
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
        assert stop.wait(10)
