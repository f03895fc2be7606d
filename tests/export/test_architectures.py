"""Every architecture is exported as it answers: onnxruntime agrees with torch, whatever tasks share."""

import pytest
from msgspec.structs import replace

from contract.features.declaration import Feature, FeatureSet
from contract.settings import ModelConfig
from export.onnx_export import check_parity, to_onnx
from export.subgraphs import build_subgraphs
from model.network import Network
from tests.model.small import CLICK, FRAUD, SHAPE, TASKS, make_network
from tests.model.test_sharing import SHAPES


def assert_exported(network: Network) -> None:
    for one in build_subgraphs(network):
        assert check_parity(one, to_onnx(one, network, {}), network) < 1e-5


@pytest.mark.parametrize("shape", [SHAPES[name] for name in ("single", "everything")], ids=["single", "everything"])
def test_a_graph_answers_as_its_network_does(shape: ModelConfig, seed: int) -> None:
    assert_exported(make_network(seed=seed, shape=shape))


def test_a_limit_on_sharing_is_kept_by_the_graphs(seed: int) -> None:
    tasks = (replace(CLICK, alone=("item",), experts=(0,)), replace(FRAUD, alone=("user",)), *TASKS[3:])

    assert_exported(make_network(seed=seed, tasks=tasks))


def test_a_column_of_a_table_and_a_vector_are_exported_too(seed: int) -> None:
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
