"""Graphs as sparse operators: user-item graph, hypergraphs, nearest neighbours of items, propagation.

Nothing here has parameters to train or knows how a dataset is stored.
"""
