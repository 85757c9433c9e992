"""How settings are read: layers of YAML files with the origin of each value, variants, search spaces, strict JSON.

Nothing here knows what a setting means to a model.
"""
