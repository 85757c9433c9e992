"""Settings: strict YAML, layers with the origin of each value, typed classes, variants, search spaces and strict JSON.

The code here does not depend on what a setting means to a model.
"""
