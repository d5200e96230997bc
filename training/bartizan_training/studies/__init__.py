"""Studies: many runs of one recipe that differ in one thing, judged and set beside each other."""
