"""The language model of the LLM stage: loading, adapters, prefix attention."""
