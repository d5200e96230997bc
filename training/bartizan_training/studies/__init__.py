"""Studies: commands that measure one question about towers and print a table."""
