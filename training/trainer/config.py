"""The [training] section in the commands of training: values of the command line, and the balancing method."""

from collections.abc import Mapping

from pydantic import ValidationError

from contract.errors import BadConfig
from contract.settings.reading import describe_errors
from contract.settings.training import TrainingConfig
from training.trainer.loss_balancing import create_method


def override_config(declared: TrainingConfig, overrides: Mapping[str, object]) -> TrainingConfig:
    """The declared settings with some values replaced, the others as set; raises `BadConfig` for wrong values."""
    try:
        config = TrainingConfig.model_validate({**declared.model_dump(exclude_unset=True), **overrides})
    except ValidationError as error:
        raise BadConfig(describe_errors(error, TrainingConfig, "training.")) from error
    check_balance(config)
    return config


def check_balance(config: TrainingConfig) -> None:
    """Raises `BadConfig` for a balancing method that TorchJD does not have; only training has TorchJD to ask."""
    create_method(config.balance, 1)
