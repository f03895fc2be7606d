"""Two processes that learn one network take the steps that one would have taken."""

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

QUIET = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}  # warnings are errors there as well
BALANCES = ("static", "uncertainty", "upgrad")


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights of each of two processes, for each way of balancing."""
    folder = tmp_path_factory.mktemp("fleet")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "tests.training.torchrun_worker", str(folder), *BALANCES]
    subprocess.run(command, cwd=ROOT, check=True, timeout=150, env={**os.environ, **QUIET})
    return folder


@pytest.mark.parametrize("balance", BALANCES)
def test_two_processes_learn_what_one_learns(balance: str, learned: Path) -> None:
    one, other = (torch.load(learned / f"{balance} {rank}.pt", weights_only=True) for rank in (0, 1))

    alone = fit_weights(balance, SINGLE_PROCESS)

    for name, weights in alone.items():
        assert torch.equal(one[name], other[name]), name
        torch.testing.assert_close(one[name], weights, rtol=2e-3, atol=2e-4)


def test_a_process_alone_is_a_fleet_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)

    assert join_process_group("cpu") == ProcessGroup()
    assert SINGLE_PROCESS.is_main


def test_a_gpu_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(BadConfig, match="Found no GPU that torch can use"):
        join_process_group("cuda")
