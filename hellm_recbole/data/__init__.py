"""From source files to one split."""
