"""Options of the commands and their parsing. Nothing here imports torch, Ray or pandas, so that `--help` is fast."""
