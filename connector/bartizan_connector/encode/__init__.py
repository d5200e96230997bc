"""Texts to vectors: the seam, the one encode loop, and the engines in this process."""
