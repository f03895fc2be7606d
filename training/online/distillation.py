"""The teacher: the last published model, which the network that goes on learning is kept near.

Learning without forgetting (Li and Hoiem 2017): where an update has no label, and on all that is replayed, the network
is drawn to the probabilities of the model before it (Hinton et al. 2015), so what it knew of rarer rows is not undone
by what happens to come now. What is compared are the towers' own probabilities: calibration comes after, in both alike.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from model.heads import compute_probabilities
from model.network import Network
from training.trainer.batching import Batch, label_mask


@torch.no_grad()
def add_teacher_targets(teacher: Network, batch: Batch, labelled: int) -> Batch:
    """The batch with what the teacher says of it; of its first `labelled` rows, where a task has no label alone."""
    targets = dict[str, Tensor]()
    for view in teacher.views:
        rows = batch.labelled_rows(view)
        if not len(rows):
            continue
        logits = teacher.logits(view, teacher.group_parts(view, batch.take(rows, view.groups).inputs))
        for task, answer in compute_probabilities(view.tasks, logits, teacher.scale).items():
            label = batch.labels[task]
            target = torch.full((len(label), *answer.shape[1:]), np.nan)
            target[rows] = answer
            target[:labelled][label_mask(label[:labelled])] = np.nan
            targets[task] = target
    return replace(batch, soft_targets=targets)
