"""Teachers: models too slow to search with, which score pairs of query and document for a tower to learn from."""
