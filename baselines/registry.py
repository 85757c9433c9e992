"""The registry of all models: name, class, settings, family and kind of batch. To add a model, add a line."""

from __future__ import annotations

from hellm_recbole.baselines.bm3 import BM3, BM3Settings
from hellm_recbole.baselines.bpr import BPR, BPRSettings
from hellm_recbole.baselines.bsarec import BSARec, BSARecSettings
from hellm_recbole.baselines.collm import CoLLM
from hellm_recbole.baselines.e4srec import E4SRec
from hellm_recbole.baselines.ease import EASE, EASESettings
from hellm_recbole.baselines.freedom import FREEDOM, FREEDOMSettings
from hellm_recbole.baselines.grcn import GRCN, GRCNSettings
from hellm_recbole.baselines.item_knn import ItemKNN, ItemKNNSettings
from hellm_recbole.baselines.lattice import LATTICE, LATTICESettings
from hellm_recbole.baselines.lightgcn import LightGCN, LightGCNSettings
from hellm_recbole.baselines.llara import LLaRA
from hellm_recbole.baselines.pop import Pop, PopSettings
from hellm_recbole.baselines.sasrec_text import SASRecText, SASRecTextSettings
from hellm_recbole.baselines.slmrec import SLMRec, SLMRecSettings
from hellm_recbole.baselines.tiger import TIGER, TIGERSettings
from hellm_recbole.baselines.vbpr import VBPR, VBPRSettings
from hellm_recbole.models.base import ModelSpec
from hellm_recbole.models.hellm import HeLLM
from hellm_recbole.models.hellm_plus import HeLLMPlus, HeLLMPlusSettings
from hellm_recbole.models.hellm_pre import HeLLMPre, HeLLMPreSettings
from hellm_recbole.models.llm_settings import LLMSettings
from hellm_recbole.models.sasrec import SASRec, SASRecSettings
from hellm_recbole.plugins.models import add_plugin_models

REGISTRY: dict[str, ModelSpec] = {
    "Pop": ModelSpec(Pop, PopSettings, "collaborative", "none"),
    "ItemKNN": ModelSpec(ItemKNN, ItemKNNSettings, "collaborative", "none"),
    "EASE": ModelSpec(EASE, EASESettings, "collaborative", "none"),
    "BPR": ModelSpec(BPR, BPRSettings, "collaborative", "pairs"),
    "LightGCN": ModelSpec(LightGCN, LightGCNSettings, "collaborative", "pairs"),
    "VBPR": ModelSpec(VBPR, VBPRSettings, "multimodal", "pairs"),
    "GRCN": ModelSpec(GRCN, GRCNSettings, "multimodal", "pairs"),
    "LATTICE": ModelSpec(LATTICE, LATTICESettings, "multimodal", "pairs"),
    "SLMRec": ModelSpec(SLMRec, SLMRecSettings, "multimodal", "pairs"),
    "BM3": ModelSpec(BM3, BM3Settings, "multimodal", "pairs"),
    "FREEDOM": ModelSpec(FREEDOM, FREEDOMSettings, "multimodal", "pairs"),
    "HeLLMPre": ModelSpec(HeLLMPre, HeLLMPreSettings, "multimodal", "pairs"),
    "SASRec": ModelSpec(SASRec, SASRecSettings, "sequential", "sequences"),
    "BSARec": ModelSpec(BSARec, BSARecSettings, "sequential", "prefixes"),
    "SASRec-text": ModelSpec(SASRecText, SASRecTextSettings, "sequential", "sequences"),
    "SASRec-text-llm": ModelSpec(SASRecText, SASRecTextSettings, "sequential", "sequences"),
    "TIGER": ModelSpec(TIGER, TIGERSettings, "sequential", "prefixes", scores_items=True),
    "CoLLM": ModelSpec(CoLLM, LLMSettings, "llm", "sequences"),
    "LLaRA": ModelSpec(LLaRA, LLMSettings, "llm", "sequences"),
    "E4SRec": ModelSpec(E4SRec, LLMSettings, "llm", "sequences"),
    "HeLLM": ModelSpec(HeLLM, LLMSettings, "llm", "sequences"),
    "HeLLM-plus": ModelSpec(HeLLMPlus, HeLLMPlusSettings, "llm", "sequences"),
}

# Rows of `--models all` that train nothing: one-step transitions, all priors alone, and the strongest row without a
# language model with the same priors that other rows get.
COMBINED_BASELINES = ("Transitions", "Priors", "SASRec-priors")


def load_registry() -> dict[str, ModelSpec]:
    """Load all models that can be run by name: those above, those of installed packages, and those of the user."""
    return add_plugin_models(REGISTRY)
