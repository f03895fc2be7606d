from typing import Any

import pytest

from contract.settings.experiments import ExperimentSettings, find_experiment_mistakes
from contract.settings.worker import ListSettings

LISTS = ListSettings()


def read(**tables: dict[str, Any]) -> list[str]:
    """The mistakes of these experiments' list settings."""
    experiments = {
        name.replace("_", "-"): ExperimentSettings.model_validate({"lists": lists}) for name, lists in tables.items()
    }
    return list(find_experiment_mistakes(experiments, LISTS))


def test_a_variant_has_its_own_settings_and_otherwise_those_of_all() -> None:
    experiment = ExperimentSettings.model_validate({"share": 0.2, "lists": {"length": 30, "explore": 0.0}})

    actual = experiment.override(LISTS)
    assert (actual.length, actual.explore, actual.candidates) == (30, 0.0, LISTS.candidates)
    assert read(longer={"length": 30}, wider={"explore": 0.1}) == []


@pytest.mark.parametrize(
    ("tables", "mistake"),
    [
        ({"Loud": {"length": 5}}, "`experiments.Loud` should have a name of at most 64 lower-case letters"),
        ({"same": {}}, "`experiments.same.lists` should change a setting of `lists`. Found none."),
        (
            {"a": {"length": 5}, "b": {"length": 6}},
            "`experiments.b.lists.length` should be changed by one experiment. Found it in `experiments.a` too.",
        ),
        ({"a": {"length": 150}}, "in every combination of `experiments`. Found 150 items of 100 candidates."),
        ({"a": {"length": 60}, "b": {"candidates": 50}}, "Found 60 items of 50 candidates."),
        ({f"e{n}": {"length": 5} for n in range(6)}, "`experiments` should be at most 5 at a time. Found 6."),
    ],
    ids=["name", "empty", "twice", "length", "combination", "many"],
)
def test_a_mistake_between_experiments_is_told(tables: dict[str, Any], mistake: str) -> None:
    assert any(mistake in sentence for sentence in read(**tables))


@pytest.mark.parametrize(
    "table", [{"share": 0}, {"share": 1}, {"lists": {"length": 0}}, {"lists": {"ttl_s": 5}}, {"bundle": "v2"}]
)
def test_a_wrong_value_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        ExperimentSettings.model_validate(table)
