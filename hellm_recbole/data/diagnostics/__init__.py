"""Data cards and data warnings: the content of a prepared dataset, and what affects a comparison of models on it.

Nothing in this package changes data.
"""
