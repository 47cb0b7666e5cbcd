"""Measures an aligned model: win rates, verifiable accuracy, the price in KL."""
