"""The training lab (11.2a, 11.2b, 11.2c): small language models whose embedding is recorded at every step."""
