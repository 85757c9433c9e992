"""The models of this package: the entry point of the group `hellm_recbole.models`."""

from hellm_example.adjusted_bpr import AdjustedBPR, AdjustedBPRSettings
from hellm_recbole.models.base import ModelSpec

MODELS = {"AdjustedBPR": ModelSpec(AdjustedBPR, AdjustedBPRSettings, "collaborative", "pairs")}
