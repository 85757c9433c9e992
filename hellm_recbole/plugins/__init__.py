"""What installed packages add through entry points: models, metrics, splits and callbacks.

They are found, loaded and checked here. What they add is used in `experiments` and `report`. See `examples/plugin/`.
"""
