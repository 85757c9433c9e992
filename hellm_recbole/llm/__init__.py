"""The language model of HeLLM, CoLLM, LLaRA and E4SRec: loading, adapters, prefix attention."""
