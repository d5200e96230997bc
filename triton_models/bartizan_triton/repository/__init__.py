"""A versioned model repository for Triton: written from exports, a version is never edited, one is pinned."""
