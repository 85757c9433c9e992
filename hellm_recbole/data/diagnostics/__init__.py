"""What a prepared dataset holds and what in it a comparison should know of. Nothing here changes data."""
