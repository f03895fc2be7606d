"""A network with the shop's features, tasks and configuration, feature statistics of random rows and random weights.

The embeddings have a larger variance than trained ones, which makes rounding errors larger; speed does not depend on
the weights.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from contract.features.declaration import GROUPS, Block, FeatureSet
from contract.settings.reading import read_settings
from contract.tasks import Task
from model.feature_statistics import measure
from model.network import Network

ROWS: Final = 20_000  # from which statistics are measured
IDS: Final = 3_000  # distinct ids of each feature; higher ones are rarer
CLASSES: Final = 24


def draw_network(seed: int) -> Network:
    """The network that `shop.toml` and `features.toml` declare, in evaluation mode."""
    torch.manual_seed(seed)
    settings, features = read_settings()
    model_config, rng = settings.model, np.random.default_rng(seed)
    blocks = {group: draw_block(features, group, rng) for group in GROUPS}
    class_names = tuple(f"class {number}" for number in range(CLASSES))
    classes = {task.name: class_names for task in settings.tasks if task.kind == "multiclass"}
    labels = {task.name: draw_labels(task, rng) for task in settings.tasks}
    statistics = measure(features, blocks, labels, settings.tasks, classes, model_config.rows, model_config.bins)
    network = Network(features=features, tasks=settings.tasks, config=model_config, statistics=statistics)
    with torch.no_grad():
        for table in network.tables.values():
            table.normal_()
    return network.eval()


def draw_block(features: FeatureSet, group: str, rng: np.random.Generator) -> Block:
    """Skewed numbers, a tenth of them missing; ids with few frequent values and some missing."""
    block = features.empty_block(group, ROWS)
    block.numbers[:] = rng.lognormal(1, 1, block.numbers.shape)
    block.numbers[rng.random(block.numbers.shape) < 0.1] = np.nan
    block.ids[:] = (IDS * rng.random(block.ids.shape) ** 2).astype(np.int64)
    return block


def draw_labels(task: Task, rng: np.random.Generator) -> npt.NDArray[Any]:
    if task.kind == "multiclass":
        return rng.integers(0, CLASSES, ROWS)
    if task.kind == "regression":
        return rng.normal(100, 20, ROWS).astype(np.float32)
    return (rng.random(ROWS) < 0.1).astype(np.float32)
