"""Download of raw files and pictures; each file is checked before it gets its final name."""
