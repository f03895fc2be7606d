"""A process of `torchrun` in tests of distributed training: fits examples and writes the weights of its rank.

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


def fit_weights(balance: str, process_group: ProcessGroup) -> dict[str, torch.Tensor]:
    """The weights after two epochs."""
    config = PLAN.model_copy(update={"epochs": 2, "balance": balance})
    options = FitOptions(process_group=process_group)
    fitted = fit(make_examples(ROWS, SEED), SHAPE, config, lambda epoch: None, options)
    return fitted.network.state_dict()


if __name__ == "__main__":
    torch.set_num_threads(1)
    process_group = join_process_group("cpu")
    for balance in sys.argv[2:]:
        torch.save(fit_weights(balance, process_group), Path(sys.argv[1]) / f"{balance} {process_group.rank}.pt")
    process_group.close()
