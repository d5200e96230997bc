"""A versioned model repository for Triton: a version is never edited, one is pinned."""
