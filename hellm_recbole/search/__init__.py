"""Searching settings: what may be tried, the trials on Ray Tune, and what they leave behind."""
