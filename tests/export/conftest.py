"""One bundle for all tests, and one thread of torch: with more, two runs on one machine wait for each other."""

from pathlib import Path

import pytest
import torch

from export.exporter import ExportResult, export
from model.checkpoint import Checkpoint, make_metadata
from model.network import Network
from tests.model.small import make_network

torch.set_num_threads(1)

THRESHOLDS = {"fraud": {"review": 0.3}, "brushing": {"review": 0.5}}


def make_checkpoint(network: Network, created_ms: int = 10**12) -> Checkpoint:
    about = make_metadata(network, parent=None, created_ms=created_ms, evaluation={}, positions={"shop.feedback/1": 7})
    return Checkpoint(metadata=about, weights=network.state_dict())


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="session")
def exported(bundles: Path) -> ExportResult:
    return export(make_checkpoint(make_network()), bundles, THRESHOLDS)
