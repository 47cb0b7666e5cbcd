"""What the world is, shows, says and rewards: NumPy and MuJoCo, never torch."""
