"""The space contract: what a tower is, how it reads texts, what its vectors are."""
