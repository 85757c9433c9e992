"""Comparison with public code: the implementations of other projects, run from checkouts of their repositories.

Nothing that trains or reports imports this folder.
"""
