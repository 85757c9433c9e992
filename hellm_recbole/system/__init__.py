"""Access to the operating system: files, locks, signals, processes and the console.

Code in this folder knows nothing about models or data.
"""
