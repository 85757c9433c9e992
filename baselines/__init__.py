"""The rivals, one file each, and the registry of all models."""
