"""The demo: everything Bartizan does, end to end, on a corpus that every machine has."""
