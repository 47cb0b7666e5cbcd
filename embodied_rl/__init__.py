"""Learns to act in a body: offline RL, evaluation, data."""
