"""Small inputs for tests of the model: a few features of each kind, tasks, a narrow network, random rows."""

import numpy as np
import torch

from contract.features.declaration import Block, Feature, FeatureSet
from contract.settings.model import ModelConfig
from contract.tasks import Task
from model.checkpoint import Checkpoint, make_metadata
from model.feature_statistics import measure
from model.network import Inputs, Network

FEATURES = FeatureSet(
    [
        Feature("recent", "user", "sequence", "profile.user.recent"),
        Feature("clicks", "user", "number", "profile.user.clicks.count_1d"),
        Feature("spent", "user", "number", "profile.user.orders.sum_30d"),
        Feature("surface", "context", "category", "event.surface"),
        Feature("hour", "context", "number", "event.hour"),
        Feature("payment", "order", "category", "event.payment_method"),
        Feature("amount", "order", "number", "event.amount"),
        Feature("devices", "order", "number", "profile.device.orders.count_1d"),
        Feature("item", "item", "category", "item.item_id"),
        Feature("kind", "item", "category", "item.category"),
        Feature("title", "item", "text", "item.title"),
        Feature("price", "item", "number", "item.price"),
        Feature("query", "query", "text", "query.text"),
    ]
)
CLICK = Task("click", "binary", ("user", "context", "item"), "recommend")
PURCHASE = Task("purchase", "binary", ("user", "context", "item"), "recommend", through="click")
FRAUD = Task("fraud", "binary", ("user", "order", "context"), "decide")
RELEVANCE = Task("relevance", "graded", ("query", "item", "user"), "search")
CATEGORY = Task("category", "multiclass", ("item",), "classify", hide=("item", "kind"))
DEMAND = Task("demand", "regression", ("user", "order"), "decide")
TASKS = (CLICK, PURCHASE, FRAUD, RELEVANCE, CATEGORY)
CLASSES = {"category": ("games", "shoes", "tea")}
SHAPE = ModelConfig(embedding=4, hidden=8, factors=3, experts=2, expert=6, tower=5, rows=256)
GROUPS = ("user", "context", "order", "item", "query")
SHAPES = {
    "single": SHAPE.model_copy(update={"architecture": "single"}),
    "shared bottom": SHAPE.model_copy(update={"architecture": "shared_bottom"}),
    "mmoe": SHAPE,
    "ple": SHAPE.model_copy(update={"architecture": "ple", "own": 2, "levels": 3}),
    "everything": SHAPE.model_copy(
        update={
            "architecture": "ple",
            "levels": 2,
            "cross": 2,
            "cross_rank": 3,
            "bins": 6,
            "members": 3,
            "dropout": 0.2,
            "factors": 0,
        }
    ),
    "full cross": SHAPE.model_copy(update={"cross": 1, "members": 2, "bins": 1}),
}


def draw_block(group: str, rows: int, rng: np.random.Generator, features: FeatureSet = FEATURES) -> Block:
    """Log-normal numbers, a tenth of them unknown, and ids from 1 to 49, or 0."""
    block = features.empty_block(group, rows)
    block.numbers[:] = rng.lognormal(0, 1, block.numbers.shape)
    block.numbers[rng.random(block.numbers.shape) < 0.1] = np.nan
    block.ids[:] = rng.integers(0, 50, block.ids.shape)
    return block


def draw_blocks(rows: int, seed: int, features: FeatureSet = FEATURES) -> dict[str, Block]:
    rng = np.random.default_rng(seed)
    return {group: draw_block(group, rows, rng, features) for group in GROUPS}


def draw_labels(rows: int, seed: int) -> dict[str, np.ndarray]:
    """All labels of all rows."""
    rng = np.random.default_rng(seed)
    click = rng.integers(0, 2, rows).astype(np.float32)
    return {
        "click": click,
        "purchase": click * rng.integers(0, 2, rows).astype(np.float32),
        "fraud": rng.integers(0, 2, rows).astype(np.float32),
        "relevance": rng.random(rows).astype(np.float32),
        "category": rng.integers(0, 3, rows),
        "demand": rng.normal(100, 20, rows).astype(np.float32),
    }


def make_network(
    *, tasks: tuple[Task, ...] = TASKS, shape: ModelConfig = SHAPE, seed: int = 1, features: FeatureSet = FEATURES
) -> Network:
    """A network with random embeddings, as after some training."""
    torch.manual_seed(seed)
    statistics = measure(
        features, draw_blocks(200, seed, features), draw_labels(200, seed), tasks, CLASSES, shape.rows, shape.bins
    )
    network = Network(features=features, tasks=tasks, config=shape, statistics=statistics)
    with torch.no_grad():
        for table in network.tables.values():
            table.normal_()
    return network.eval()


def make_checkpoint(network: Network, created_ms: int = 10**12) -> Checkpoint:
    """A checkpoint of a network without evaluation, optimizer or data."""
    metadata = make_metadata(
        network, parent=None, created_ms=created_ms, evaluation={}, positions={"shop.feedback/1": 7}
    )
    return Checkpoint(metadata=metadata, weights=network.state_dict())


def to_inputs(blocks: dict[str, Block]) -> Inputs:
    return {group: (torch.from_numpy(block.numbers), torch.from_numpy(block.ids)) for group, block in blocks.items()}
