"""[training]: how a network is fitted and updated."""

from typing import Annotated, Literal

from pydantic import Field

from contract.settings.section import NonNegative, Positive, Section, Share

PositiveNumber = Annotated[float, Field(gt=0)]
NonNegativeNumber = Annotated[float, Field(ge=0)]


class TrainingConfig(Section):
    """Fitting and updates; all but the device and thread settings decide what is learned.

    Fitting. `held_out`: the latest share of the examples, for validation and for the promotion gate. `patience`: epochs
    without gain before training stops. `balance`: how the losses of tasks become one step, by a name of
    `training.trainer.loss_balancing`, which only the training commands check. `focus`: how much more weight a task gets
    after each epoch if held-out examples show that it is hard; 0 keeps the declared weights. `refit`: the network that
    is kept has learned all examples, after the held-out ones have chosen the epochs; of examples in memory alone, and
    not of a fit that starts from another network. `teacher`: `trees` fits a second time, with the probabilities of
    gradient-boosted trees as labels of the judging tasks on which these are ahead, and keeps the better network; of
    examples in memory alone, too. `turns`: each step uses one kind of rows alone (one data set, where
    tasks come from several), kind after kind. `stream_rows`: files with more rows are not loaded into memory but
    streamed in each epoch. `threads` of torch; more than there are idle cores is much slower. `device` for training;
    `precision` of matrix products, while weights, sums and losses stay float32.

    What comes next, learned from interactions (`fit --interactions`). `next_item_epochs`: passes over them at most; 0
    learns nothing from them but neighbours. `new_items_only`: lists should not have items that the user had, so these
    are no targets either.

    Updates (`training follow`). `update_rate`: their share of `learning_rate`. `update_batch`: new rows for each step.
    `replay`: rows of the replay buffer for each new row. `keep`: size of the replay buffer in a checkpoint.
    `distillation`: weight of the distance to the published model's outputs. An id gets an embedding row after
    `row_after` examples, and loses it after `unused_days` of event time without any. `pause_s`: between two polls of
    the feedback topic. `records_max`: feedback records for one update.

    The gate. `margin`: share of its gain on held-out examples that a task may lose. `user_share`: share of an update
    that one user may have. `jump`: labels are rejected if they are this many times more, or less, frequent than the
    model expects. `refusals_max`: rejected updates in a row after which the model is frozen.
    """

    batch: Positive = 512
    epochs: Positive = 4
    learning_rate: PositiveNumber = 0.005
    weight_decay: NonNegativeNumber = 0.01
    patience: Positive = 2
    held_out: Share = 0.2
    refit: bool = False
    teacher: Literal["none", "trees"] = "none"
    seed: int = 7
    balance: str = "static"
    turns: bool = False
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"
    focus: NonNegativeNumber = 0.0
    threads: Positive = 1
    next_item_epochs: NonNegative = 4
    new_items_only: bool = False
    update_rate: Annotated[float, Field(gt=0, le=1)] = 0.2
    update_batch: Positive = 256
    replay: NonNegativeNumber = 1.0
    distillation: NonNegativeNumber = 0.5
    row_after: Positive = 5
    unused_days: PositiveNumber = 30.0
    keep: NonNegative = 4_096
    stream_rows: Positive = 2_000_000
    margin: NonNegativeNumber = 0.05
    pause_s: PositiveNumber = 30.0
    records_max: Positive = 20_000
    user_share: Share = 0.05
    jump: Annotated[float, Field(gt=1)] = 1.75
    refusals_max: Positive = 3
