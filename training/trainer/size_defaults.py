"""Defaults that suit the size of the data: what the settings leave open is chosen by the number of rows.

Few rows need more passes over smaller batches, and a network that cannot fit noise: dropout, weight decay, and members
that are averaged. Numbers in bins give it the steps that trees find at once. A fifth of few rows is too much to learn
nothing from, so the held-out part is learned at last. Of few positives trees learn more, so they may teach. Many rows
need none of that, and fitting and serving are cheaper without. What `shop.toml` declares is never changed.
"""

from typing import Any, Final, NamedTuple

from contract.settings.model import ModelConfig
from contract.settings.training import TrainingConfig


class SizeDefaults(NamedTuple):
    """What is chosen for data of at most `rows` rows."""

    rows: float
    model: dict[str, Any]
    training: dict[str, Any]


SIZES: Final = (
    SizeDefaults(
        20_000,
        {"embedding": 8, "expert": 32, "tower": 16, "factors": 8, "bins": 16, "members": 4, "dropout": 0.2},
        {
            "batch": 128,
            "epochs": 20,
            "patience": 4,
            "learning_rate": 0.002,
            "weight_decay": 0.05,
            "refit": True,
            "teacher": "trees",
        },
    ),
    SizeDefaults(
        100_000,
        {"embedding": 8, "expert": 32, "tower": 16, "factors": 8, "bins": 24, "members": 4, "dropout": 0.15},
        {
            "batch": 256,
            "epochs": 12,
            "patience": 3,
            "learning_rate": 0.002,
            "weight_decay": 0.03,
            "refit": True,
            "teacher": "trees",
        },
    ),
    SizeDefaults(
        400_000,
        {"bins": 24, "members": 4, "dropout": 0.1},
        {"epochs": 8, "patience": 3, "learning_rate": 0.002, "weight_decay": 0.03},
    ),
    SizeDefaults(float("inf"), {}, {}),  # the defaults of the settings
)

ADAPTED: Final = frozenset(name for size in SIZES for name in (*size.model, *size.training))


def choose_defaults(rows: int) -> SizeDefaults:
    """The first of `SIZES` that has as many rows."""
    return next(size for size in SIZES if rows <= size.rows)


def adapt_configs(
    model_config: ModelConfig, config: TrainingConfig, rows: int, initial: ModelConfig | None = None
) -> tuple[ModelConfig, TrainingConfig]:
    """Both, with unset fields chosen for that number of rows; a network that starts from another has its shape."""
    size = choose_defaults(rows)
    chosen = size.model if initial is None else initial.model_dump()
    return (
        model_config.model_copy(update=keep_declared(model_config, chosen)),
        config.model_copy(update=keep_declared(config, size.training)),
    )


def keep_declared(section: ModelConfig | TrainingConfig, chosen: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in chosen.items() if name not in section.model_fields_set}


def describe_defaults(model_config: ModelConfig, config: TrainingConfig, rows: int) -> list[str]:
    """A sentence with what `adapt_configs` chooses for that number of rows; none if the settings say it all."""
    size = choose_defaults(rows)
    chosen = {**keep_declared(model_config, size.model), **keep_declared(config, size.training)}
    if not chosen:
        return []
    values = ", ".join(f"{name} = {value}" for name, value in chosen.items())
    return [f"For {rows:,} rows, where the settings leave it open: {values}."]
