"""Towers in torch: load, save, cut and run them; the numerical reference for every other engine."""

NEEDED = ("torch", "transformers", "safetensors", "tokenizers")
"""Modules of the extra `train` without which no tower is loaded; importing this package loads none of them."""
