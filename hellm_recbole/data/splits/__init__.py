"""Splits besides leave-one-out and given ones: one time line, a ratio of each user's interactions, cold items.

The rules of leave-one-out and of given splits are in `data.split`; functions of installed packages are in `plugins`.
"""
