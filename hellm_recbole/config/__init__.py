"""Reading of settings: layered YAML files with the origin of each value, variants, search spaces and strict JSON.

The code here does not depend on what a setting means to a model.
"""
