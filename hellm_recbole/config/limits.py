"""The largest numbers that settings and options may have."""

from __future__ import annotations

LARGEST = 2**31 - 1  # largest integer: torch, numpy and C libraries accept it as a size everywhere
LARGEST_FLOAT = 1e30  # largest number for computations in single precision
LARGEST_CUTOFF = 10**6  # largest K of Recall@K and NDCG@K
LARGEST_SEED = 2**64 - 1  # largest seed that torch accepts
MOST_THREADS = 1024
MOST_EPOCHS = 10**6
