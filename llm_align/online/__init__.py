"""Learns from its own samples: one rollout, one loop per family."""
