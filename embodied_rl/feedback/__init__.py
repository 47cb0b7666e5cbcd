"""Judgements of what a robot did, turned into rewards: segments, teachers, a reward model, PPO on it."""
