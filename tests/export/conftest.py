"""One bundle for all tests, and a single torch thread: with more, parallel test runs block each other."""

from pathlib import Path

import pytest
import torch

from export.exporter import ExportResult, export
from tests.model.small import make_checkpoint, make_network

torch.set_num_threads(1)

THRESHOLDS = {"fraud": {"review": 0.3}, "brushing": {"review": 0.5}}


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="session")
def exported(bundles: Path) -> ExportResult:
    return export(make_checkpoint(make_network()), bundles, THRESHOLDS)
