"""A query in, ranked documents out: the legs side by side, fused."""
