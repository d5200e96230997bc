"""Recipes, one training loop, losses, evaluation and the demo."""
