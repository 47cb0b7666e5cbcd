"""Maths and run plumbing that a robot and a language model share."""
