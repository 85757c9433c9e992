"""How a model is judged: full ranking, metrics of ranks, tests of significance.

Nothing here reads files or formats tables.
"""
