"""Algorithms that learn from a fixed dataset, one file each."""
