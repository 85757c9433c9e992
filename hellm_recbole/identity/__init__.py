"""Digests of everything that a number depends on, and the checks that pretrained weights are what they claim to be.

It holds no training code.
"""
