"""Learning from one's own rollouts: PPO, SAC, and the continuation of an offline policy online."""
