"""What the settings leave open is chosen by the number of rows; what they declare is never changed."""

import pytest

from contract.settings.model import ModelConfig
from contract.settings.training import TrainingConfig
from training.trainer.config import override_config
from training.trainer.size_defaults import ADAPTED, SIZES, adapt_configs, describe_defaults


@pytest.mark.parametrize("rows", [1, 20_000, 20_001, 100_000, 400_000, 10**9])
def test_declared_values_are_kept_whatever_the_size(rows: int) -> None:
    model = ModelConfig(dropout=0.0, members=1, hidden=17)
    training = TrainingConfig(epochs=4, learning_rate=0.005)

    adapted, config = adapt_configs(model, training, rows)

    assert (adapted.dropout, adapted.members, adapted.hidden) == (0.0, 1, 17)
    assert (config.epochs, config.learning_rate) == (4, 0.005)


def test_fewer_rows_get_more_passes_smaller_batches_and_more_regularisation() -> None:
    chosen = [adapt_configs(ModelConfig(), TrainingConfig(), rows) for rows in (10_000, 40_000, 200_000, 10**7)]

    assert [config.epochs for _, config in chosen] == [20, 12, 8, 4]
    assert [config.batch for _, config in chosen] == [128, 256, 512, 512]
    assert [model.dropout for model, _ in chosen] == [0.2, 0.15, 0.1, 0.0]
    assert [config.refit for _, config in chosen] == [True, True, False, False]


def test_many_rows_get_the_defaults_of_the_settings() -> None:
    assert adapt_configs(ModelConfig(), TrainingConfig(), 10**7) == (ModelConfig(), TrainingConfig())
    assert describe_defaults(ModelConfig(), TrainingConfig(), 10**7) == []


def test_a_network_that_starts_from_another_has_its_shape() -> None:
    initial = ModelConfig(hidden=24, members=2)

    model, _ = adapt_configs(ModelConfig(), TrainingConfig(), 40_000, initial)

    assert model == initial


def test_values_of_the_command_line_count_as_declared() -> None:
    config = override_config(TrainingConfig(batch=64), {"epochs": 1})

    _, adapted = adapt_configs(ModelConfig(), config, 40_000)

    assert (adapted.batch, adapted.epochs, adapted.patience) == (64, 1, 3)


def test_all_choices_are_valid_settings_and_are_told() -> None:
    for size in SIZES:
        ModelConfig(**size.model)
        TrainingConfig(**size.training)
    (sentence,) = describe_defaults(ModelConfig(), TrainingConfig(), 40_000)

    assert "40,000 rows" in sentence
    assert {"dropout", "epochs"} <= ADAPTED
