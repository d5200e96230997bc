"""A new tower for a collection that is in use: filled beside it, kept up with it, judged, and put in its place."""
