"""Settings of the report: they come from the settings file."""

from __future__ import annotations

from hellm_recbole.config.yaml_files import find_properties, load_yaml
from hellm_recbole.report.settings import read_report_settings


def test_values_are_those_of_the_file() -> None:
    values = load_yaml(find_properties() / "report.yaml")
    settings = read_report_settings()
    assert settings.n_resamples == values["n_resamples"]
    assert settings.popularity_quantiles == tuple(values["popularity_quantiles"])
