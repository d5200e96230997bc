"""Changes from a source into a collection: the seam, the records, the fence, the work."""
