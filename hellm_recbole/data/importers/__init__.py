"""Importers: convert published files to atomic tables. `sources.KINDS` lists the kinds of sources."""
