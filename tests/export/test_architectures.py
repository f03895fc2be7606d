"""onnxruntime reproduces torch for every architecture, whatever tasks share."""

import pytest
from msgspec.structs import replace

from contract.features.declaration import Feature, FeatureSet
from contract.settings.model import ModelConfig
from export.onnx_export import check_parity, to_onnx
from export.subgraphs import build_subgraphs
from model.network import Network
from tests.model.small import CLICK, FRAUD, SHAPE, SHAPES, TASKS, make_network


def assert_exported(network: Network) -> None:
    for subgraph in build_subgraphs(network):
        assert check_parity(subgraph, to_onnx(subgraph, network, {}), network) < 1e-5


@pytest.mark.parametrize("shape", [SHAPES[name] for name in ("single", "everything")], ids=["single", "everything"])
def test_graphs_of_an_architecture_reproduce_their_network(shape: ModelConfig, seed: int) -> None:
    assert_exported(make_network(seed=seed, shape=shape))


def test_graphs_respect_limits_on_sharing(seed: int) -> None:
    tasks = (replace(CLICK, alone=("item",), experts=(0,)), replace(FRAUD, alone=("user",)), *TASKS[3:])

    assert_exported(make_network(seed=seed, tasks=tasks))


def test_table_columns_and_vectors_are_exported(seed: int) -> None:
    features = FeatureSet(
        [
            Feature("age", "user", "number", "column.age"),
            Feature("job", "user", "category", "column.job"),
            Feature("face", "user", "vector", "column.face", size=3),
        ]
    )
    task = replace(FRAUD, groups=("user",))

    assert_exported(
        make_network(seed=seed, tasks=(task,), features=features, shape=SHAPE.model_copy(update={"bins": 4}))
    )
