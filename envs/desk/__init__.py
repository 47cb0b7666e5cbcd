"""A language-conditioned manipulation desk; importing it registers `embodied/Desk-v0` with Gymnasium."""

import gymnasium as gym

gym.register(
    id="embodied/Desk-v0",
    entry_point="envs.desk.env:DeskEnv",
    vector_entry_point="envs.desk.vector:DeskVectorEnv",
)
