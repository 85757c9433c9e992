"""The models that HeLLM is compared with, one file for each model, and the registry of all models."""
