"""A language model from nothing: its tokenizer, its size, and what it is asked to predict."""
