import json
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.model.small import CATEGORY, CLICK, DEMAND
from training.report.plots import plot_curves


@pytest.mark.parametrize("task", [CLICK, CATEGORY, DEMAND], ids=lambda task: task.kind)
def test_curves_are_well_formed_and_reproducible_svg(task: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, 200)
    p = rng.dirichlet(np.ones(2), 200) if task.kind == "multiclass" else rng.random(200)

    first, second = (plot_curves(task, y, {"<ours> & co": p}, ("a", "b")) for _ in range(2))

    assert first == second
    ElementTree.fromstring(first)
    assert json.dumps(first)
