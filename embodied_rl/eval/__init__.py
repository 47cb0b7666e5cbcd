"""Rollouts, scores with intervals, videos and the report page."""
