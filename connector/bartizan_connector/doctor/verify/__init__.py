"""What is stored, held against itself: rows, heads, words, names and the contract."""
