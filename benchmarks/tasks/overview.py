"""Print what can be run: models, variants, datasets and presets."""

from __future__ import annotations

from hellm_recbole.baselines.registry import COMBINED_BASELINES, REGISTRY, load_registry
from hellm_recbole.config.model_layers import list_presets
from hellm_recbole.config.plugin_points import CALLBACKS, METRICS, SPLITS, list_points
from hellm_recbole.config.variants import list_all_variants, list_variants
from hellm_recbole.data.known_datasets import list_datasets
from hellm_recbole.report.protocols import FAMILY_TITLES

ALL_MODELS = (*REGISTRY, *COMBINED_BASELINES)  # the models of `--models all`
_COMBINED = "Transitions, Priors, <Row>-priors, each also with -directed; 'Fusion(A,B,...)' (of finished runs)"
_RECBOLE = "any general or sequential model of RecBole, such as GRU4Rec, or RecBole-BPR where a name is ours"


def list_models_with_variants() -> tuple[str, ...]:
    """List the models that have variants."""
    return tuple(name for name in REGISTRY if list_variants(name))


def print_names() -> None:
    """Print the names of all models, variants, datasets and presets."""
    print(f"models    {', '.join(ALL_MODELS)}")
    print(f"          and {_RECBOLE}")
    if added := [name for name in load_registry() if name not in REGISTRY]:
        print(f"added     {', '.join(added)} (of installed packages and of your folder of properties)")
    print(f"combined  {_COMBINED}")
    print(f"variants  {', '.join(list_all_variants())}")
    print(f"datasets  {', '.join(list_datasets())}")
    print(f"presets   {', '.join(list_presets())}")
    for title, group in (("splits", SPLITS), ("metrics", METRICS), ("callbacks", CALLBACKS)):
        if points := list_points(group):
            print(f"{title:<9} {', '.join(f'{point.name} ({point.package})' for point in points)}")


def print_overview() -> None:
    """Print the models of each family, the number of variants, and the names of the datasets and presets."""
    families = {
        title: ", ".join(name for name, spec in REGISTRY.items() if spec.family == family)
        for family, title in FAMILY_TITLES.items()
    }
    lines = {f"{title} models": names for title, names in families.items() if names}
    lines["RecBole's models"] = _RECBOLE
    lines["combined rows"] = f"{', '.join(COMBINED_BASELINES)}; forms: {_COMBINED}"
    lines["variants"] = f"{len(list_all_variants())} (hellm-recbole run --list prints their names)"
    lines["datasets"] = ", ".join(list_datasets())
    lines["presets"] = ", ".join(list_presets())
    width = max(map(len, lines))
    for title, text in lines.items():
        print(f"{title:<{width}}  {text}")
