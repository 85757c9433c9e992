"""Finished runs in use: they are loaded from their folders, recommend items, and are trained again on all data.

Nothing here chooses settings, trains a run that is evaluated, or writes a table.
"""
