"""Importing, preparing, checking and splitting datasets, from the source files to one split.

Training, evaluation and the adapters to RecBole are in other packages.
"""
