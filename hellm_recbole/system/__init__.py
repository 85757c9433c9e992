"""What commands need of the operating system: locks and the end of processes. Nothing here knows models or data."""
