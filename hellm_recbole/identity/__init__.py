"""Compute and compare digests of everything that a result depends on, and check that pretrained weights are complete.

Nothing here trains a model, prepares a dataset or formats a table.
"""
