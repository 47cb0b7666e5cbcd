"""Turns files into typed batches of token ids."""
