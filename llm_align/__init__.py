"""Aligns a language model: supervised tuning, reward models, PPO, the DPO and GRPO families."""
