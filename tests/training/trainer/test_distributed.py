"""Two processes that train one network take the steps that one process would take."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from contract.errors import BadConfig
from tests.checkout import ROOT
from tests.training.torchrun_worker import fit_weights
from training.trainer.distributed import SINGLE_PROCESS, ProcessGroup, join_process_group

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
BALANCES = ("static", "uncertainty", "upgrad")


@pytest.fixture(scope="module")
def weights_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights of each of two processes, for each balancing method."""
    folder = tmp_path_factory.mktemp("weights")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "tests.training.torchrun_worker", str(folder), *BALANCES]
    subprocess.run(command, cwd=ROOT, check=True, timeout=150, env={**os.environ, **ENVIRONMENT})
    return folder


@pytest.mark.parametrize("balance", BALANCES)
def test_two_processes_train_the_weights_of_one(balance: str, weights_folder: Path) -> None:
    first, second = (torch.load(weights_folder / f"{balance} {rank}.pt", weights_only=True) for rank in (0, 1))

    single = fit_weights(balance, SINGLE_PROCESS)

    for name, weights in single.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], weights, rtol=2e-3, atol=2e-4)


def test_without_torchrun_a_process_is_single_and_main(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)

    assert join_process_group("cpu") == ProcessGroup()
    assert SINGLE_PROCESS.is_main


def test_a_missing_gpu_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(BadConfig, match="Found no GPU that torch can use"):
        join_process_group("cuda")
