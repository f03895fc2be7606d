"""Distillation: the serving model as the teacher of the network that is updated from it.

Learning without forgetting (Li and Hoiem 2017): new rows without a label of a task, and all replayed rows, pull the
network towards the teacher's probabilities (Hinton et al. 2015), so that it keeps what it knew of rows that are rare
in the update. Both networks are compared before calibration.
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
    """The batch with the teacher's probabilities as soft targets.

    Of the first `labelled` rows only tasks without a label get one; a target that is not set is NaN.
    """
    targets = dict[str, Tensor]()
    for view in teacher.views:
        rows = batch.find_labelled_rows(view)
        if not len(rows):
            continue
        logits = teacher.logits(view, teacher.group_parts(view, batch.take(rows, view.groups).inputs))
        for task, probability in compute_probabilities(view.tasks, logits, teacher.scale).items():
            label = batch.labels[task]
            target = torch.full((len(label), *probability.shape[1:]), np.nan)
            target[rows] = probability
            target[:labelled][label_mask(label[:labelled])] = np.nan
            targets[task] = target
    return replace(batch, soft_targets=targets)
