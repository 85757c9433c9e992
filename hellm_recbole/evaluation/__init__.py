"""Evaluation of models: full ranking of targets, metrics of ranks, tests of significance.

Nothing here reads files or formats tables.
"""
