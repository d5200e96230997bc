"""Rows and their vectors: the seam, the checks, and the stores behind it."""
