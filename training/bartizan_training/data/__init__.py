"""What is learned from: collections, pairs, texts, and the batches that are drawn from them."""
