"""Studies: questions that several runs of a recipe answer together."""
