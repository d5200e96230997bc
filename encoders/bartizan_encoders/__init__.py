"""Towers in torch: load, save, cut and run them; the numerical reference for every other engine."""
