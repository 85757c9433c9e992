"""Importers: from files as others publish and keep them to atomic tables. `sources.KINDS` lists the kinds."""
