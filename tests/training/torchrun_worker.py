"""What `torchrun` starts in the tests of fleets: fits the made examples, and writes what this process has come to.

torchrun ... -m tests.training.torchrun_worker FOLDER BALANCE...
"""

import sys
from pathlib import Path

import torch

from tests.model.small import SHAPE
from tests.training.examples import PLAN, make_examples
from training.trainer.distributed import ProcessGroup, join_process_group
from training.trainer.fit import FitOptions, fit

ROWS, SEED = 300, 3


def fit_weights(balance: str, fleet: ProcessGroup) -> dict[str, torch.Tensor]:
    """The weights after two epochs."""
    plan = PLAN.model_copy(update={"epochs": 2, "balance": balance})
    fitted = fit(make_examples(ROWS, SEED), SHAPE, plan, lambda epoch: None, FitOptions(process_group=fleet))
    return fitted.network.state_dict()


if __name__ == "__main__":
    torch.set_num_threads(1)
    fleet = join_process_group("cpu")
    for balance in sys.argv[2:]:
        torch.save(fit_weights(balance, fleet), Path(sys.argv[1]) / f"{balance} {fleet.rank}.pt")
    fleet.close()
