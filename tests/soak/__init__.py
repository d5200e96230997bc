"""Kills and rivals by the hundred, which the tests try by twos and threes; what was survived is a dated result."""
