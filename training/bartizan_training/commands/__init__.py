"""The sub-commands that training adds to `bartizan`."""
