"""The parameters of public models, and the parameters of our models that correspond to them."""

from __future__ import annotations

from collections.abc import Sequence

Names = dict[str, tuple[str, ...]]  # parameter of the public code -> ours
SHORT = {"image": "v", "text": "t"}  # names of the modalities in MMRec


def map_parameters(name: str, modalities: Sequence[str]) -> Names:
    """Map each parameter of the public code to ours. Several of ours are concatenated along their first axis."""
    if name == "HeLLMPre":
        return _map_hellm_pre()
    if name == "LightGCN":
        return {f"embedding_dict.{side}_emb": (f"{side}.weight",) for side in ("user", "item")}
    if name == "VBPR":
        tables: Names = {"u_embedding": ("user.weight",), "i_embedding": ("item.weight",)}
        return tables | _map_linear("item_linear", "content_map")
    if name == "GRCN":
        return _map_grcn(modalities)
    if name == "SLMRec":
        return _map_slmrec(modalities)
    return _map_item_graph_model(name, modalities)


def _map_linear(theirs: str, ours: str) -> Names:
    """Map weight and bias of a linear layer."""
    return {f"{theirs}.{part}": (f"{ours}.{part}",) for part in ("weight", "bias")}


def _map_hellm_pre() -> Names:
    """Map the parameters of MMHCL."""
    tables = {"user_ui": "user.bipartite", "item_ui": "item.bipartite", "uu": "user.hyper", "ii": "item.hyper"}
    return {f"{theirs}_embedding.weight": (f"{ours}.weight",) for theirs, ours in tables.items()}


def _map_grcn(modalities: Sequence[str]) -> Names:
    """Map the parameters of MMRec's GRCN."""
    found: Names = {
        "id_gcn.id_embedding": ("user.weight", "item.weight"),
        "model_specific_conf": ("user_confidence.weight", "item_confidence.weight"),
    }
    for modality in modalities:
        found[f"{SHORT[modality]}_gcn.preference"] = (f"preferences.{modality}.weight",)
        found |= _map_linear(f"{SHORT[modality]}_gcn.MLP", f"maps.{modality}")
    return found


def _map_slmrec(modalities: Sequence[str]) -> Names:
    """Map the parameters of MMRec's SLMRec."""
    found: Names = {"embedding_user.weight": ("user.weight",), "embedding_item.weight": ("item.weight",)}
    for modality in modalities:
        found |= _map_linear(f"{SHORT[modality]}_dense", f"maps.{modality}")
    layers = {
        "embedding_user_after_GCN": "fuse_user",
        "embedding_item_after_GCN": "fuse_item",
        "g_i_iv": "first",
        "g_v_iv": "heads.image",
    }
    if len(modalities) > 1:
        layers |= {"g_iv_iva": "steps.0", "g_iva_ivat": "last", "g_t_ivat": "heads.text"}
    for theirs, ours in layers.items():
        found |= _map_linear(theirs, ours)
    return found


def _map_item_graph_model(name: str, modalities: Sequence[str]) -> Names:
    """Map the parameters of MMRec's FREEDOM, BM3 and LATTICE."""
    found: Names = {"user_embedding.weight": ("user.weight",), "item_id_embedding.weight": ("item.weight",)}
    for modality in modalities:
        found[f"{modality}_embedding.weight"] = (f"features.{modality}.weight",)
        found |= _map_linear(f"{modality}_trs", f"maps.{modality}")
        if name == "FREEDOM":
            del found[f"{modality}_trs.bias"]  # the bias cancels in every difference; ours has none
    if name == "BM3":
        found |= _map_linear("predictor", "predictor")
    # The public LATTICE always has two modality weights, and does not use them with one modality.
    if name == "LATTICE" and len(modalities) > 1:
        found["modal_weight"] = ("modality_logits",)
    return found
