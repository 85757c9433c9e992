"""Runs and datasets on the Hugging Face hub: what is pushed, its cards, and how it is loaded again.

Nothing here trains, ranks or writes a table; the requests to the hub are those of `huggingface_hub`.
"""
