"""A trial of wrong uses: as a new user would make them, each with the answer that it has to get."""
