"""Learning from a fixed dataset: supervised tuning and the DPO family."""
