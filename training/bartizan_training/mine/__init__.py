"""Steps that search the data by what a tower makes of it: hard negatives near a query, and queries of one topic."""
