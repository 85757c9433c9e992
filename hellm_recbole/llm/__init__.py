"""The language model of HeLLM, CoLLM and LLaRA: loading, adapters, prefix attention."""
