"""Graphs as sparse operators: the user-item graph, hypergraphs, nearest neighbours of items, and propagation.

The code here has no trainable parameters and does not know how a dataset is stored.
"""
