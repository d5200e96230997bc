"""Steps that look for hard negatives: documents that a tower places near a query and that do not answer it."""
