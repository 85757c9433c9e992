"""Trackers of experiments: TensorBoard, Weights & Biases, MLflow, and those that accelerate knows in addition.

`base.py` says what a tracker gets, `opening.py` lists the trackers, and `guard.py` keeps a run going if one fails.
Nothing here knows what a run of this project is: `experiments/run_tracking.py` and `search_tracking.py` do.
"""
