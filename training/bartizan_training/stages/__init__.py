"""The kinds of stages: each file holds one kind's keys (its table in a recipe) and what it does with them."""
