"""How training goes: the [training] table of `shop.toml`."""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from contract.errors import BadConfig
from training.trainer.loss_balancing import create_method

Count = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(gt=0, lt=1)]


class TrainingConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`held_out`: the latest share of examples, for validation and for the gate. `patience`: epochs without gain.

    `balance`: how the losses of tasks become one step, by a name of `training.trainer.loss_balancing`. `focus`: how much more a task
    weighs, after each epoch, that held-out examples say is hard; 0 leaves the tasks' weights as declared. `turns`: a
    step learns from one kind of rows alone (one data set, where tasks come from several), kind after kind.

    `stream_rows`: files with more rows than that are not read into memory, but in portions, epoch after epoch.

    Of updates (`training follow`): `update_rate` is the share of `learning_rate` that they learn at, `update_batch` how
    many new rows a step is taken for. Beside each new row stand `replay` rows that the checkpoint carries, and
    `distillation` weighs how near the network stays to what the last published one says. An id gets a row of its own
    once it was met in `row_after` examples, and loses it after `unused_days` of the streams' time without any.

    `keep`: how many examples a checkpoint carries to learn from again. `margin`: how much of its gain a task may lose
    by an update on what is held out. `pause_s`: between two looks at the feedback. `threads`: of torch; more of them
    than idle cores make it much slower. `device`: what learns; `bfloat16` multiplies matrices in that precision,
    while weights, sums and losses stay float32.

    `records_max`: how much of the feedback one update takes at most.
    `user_share`: how much of an update may be of one user. `jump`: how many times more, or less, than the present model
    expects may happen before labels are not believed. `refusals_max`: so many in a row, and the model is frozen.
    """

    batch: Count = 512
    epochs: Count = 4
    learning_rate: Annotated[float, Meta(gt=0)] = 0.005
    weight_decay: Annotated[float, Meta(ge=0)] = 0.01
    patience: Count = 2
    held_out: Share = 0.2
    seed: int = 7
    balance: str = "static"
    turns: bool = False
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"
    focus: Annotated[float, Meta(ge=0)] = 0.0
    threads: Count = 1
    update_rate: Annotated[float, Meta(gt=0, le=1)] = 0.2
    update_batch: Count = 256
    replay: Annotated[float, Meta(ge=0)] = 1.0
    distillation: Annotated[float, Meta(ge=0)] = 0.5
    row_after: Count = 5
    unused_days: Annotated[float, Meta(gt=0)] = 30.0
    keep: Annotated[int, Meta(ge=0)] = 4_096
    stream_rows: Count = 2_000_000
    margin: Annotated[float, Meta(ge=0)] = 0.05
    pause_s: Annotated[float, Meta(gt=0)] = 30.0
    records_max: Count = 20_000
    user_share: Share = 0.05
    jump: Annotated[float, Meta(gt=1)] = 1.75
    refusals_max: Count = 3


def read_training_config(table: Mapping[str, object]) -> TrainingConfig:
    """The plan that the [training] table declares; raises `BadConfig`."""
    try:
        plan = msgspec.convert(table, TrainingConfig, strict=False)
    except msgspec.ValidationError as error:
        raise BadConfig([f"[training] should say how training goes. Found: {error}"]) from error
    create_method(plan.balance, 1)  # a wrong name should be told before hours of reading
    return plan
