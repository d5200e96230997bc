"""The lexical leg: which words stand in which document, in a folder that belongs to one collection."""
