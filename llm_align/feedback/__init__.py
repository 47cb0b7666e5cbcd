"""Judgements into rewards: reward models, their ensembles and their calibration."""
