"""A tower that a Triton server runs: what is served, the calls, and the encoder over them."""
