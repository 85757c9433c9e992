"""Digests of everything that a number depends on, their comparison, and the check that pretrained weights are whole.

Nothing here trains, prepares a dataset or draws a table.
"""
