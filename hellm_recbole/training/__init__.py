"""Training of a model: sampling, the training loop, checkpoints, and progress on the console and in loggers.

The code here does not know which model it trains or where the settings come from.
"""
