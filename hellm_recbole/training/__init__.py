"""How a model is trained: sampling, the loop, checkpoints, and what a person sees of it.

Nothing here knows which model it trains or where its settings come from.
"""
