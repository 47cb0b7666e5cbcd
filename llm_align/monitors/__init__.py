"""Watches a run for what a reward does not say."""
