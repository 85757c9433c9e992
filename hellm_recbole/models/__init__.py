"""Models of the project's own paper, and the sequence encoder they build on."""
