"""What commands need of the operating system: files, locks, signals, processes and the console.

Nothing here knows models or data.
"""
