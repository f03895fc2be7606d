import math

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from contract.errors import BadConfig
from contract.tasks import Task
from model.calibration import Calibrator
from model.checkpoint import Checkpoint, make_metadata
from model.config import check_tasks
from tests.model.small import (
    CATEGORY,
    CLICK,
    DEMAND,
    FEATURES,
    PURCHASE,
    RELEVANCE,
    TASKS,
    draw_blocks,
    make_network,
    to_inputs,
)

LOGITS = torch.linspace(-30, 30, 601)


@pytest.mark.parametrize("task", [CLICK, RELEVANCE, DEMAND])
def test_calibration_starts_as_the_identity(task: Task) -> None:
    torch.testing.assert_close(Calibrator(task)(LOGITS), LOGITS, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("values", [(0.05, 2.0, 3.0), (1.7, 0.4, -2.0), (1.0, 1.0, 0.5)])
def test_calibration_keeps_the_order_of_logits(values: tuple[float, float, float]) -> None:
    calibrator = Calibrator(CLICK)
    calibrator.set_values(values)

    assert (calibrator(LOGITS).diff() > 0).all()


def test_equal_slopes_are_platt_scaling_and_sharpness_is_inverse_temperature() -> None:
    platt, classes = Calibrator(CLICK), Calibrator(CATEGORY)
    platt.set_values([1.5, 1.5, -0.25])
    classes.set_values([0.5])

    torch.testing.assert_close(platt(LOGITS), 1.5 * LOGITS - 0.25, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(classes(LOGITS[:600].reshape(-1, 3)), LOGITS[:600].reshape(-1, 3) / 2)


def test_probabilities_are_corrected_for_negative_sampling() -> None:
    # He et al. 2014: p / (p + (1 - p) / rate)
    calibrator = Calibrator(replace(CLICK, negative_rate=0.1))
    p = torch.tensor([0.01, 0.3, 0.9], dtype=torch.float32)

    corrected = calibrator(p.logit()).sigmoid()

    torch.testing.assert_close(corrected, p / (p + (1 - p) / 0.1))
    torch.testing.assert_close(calibrator(p.logit(), sampled=True).sigmoid(), p)


def test_the_correction_of_a_click_applies_to_its_purchase(seed: int) -> None:
    tasks = (replace(CLICK, negative_rate=0.2), PURCHASE)
    network, inputs = make_network(tasks=tasks, seed=seed), to_inputs(draw_blocks(50, seed))
    with torch.no_grad():
        logits = network.logits(network.views[0], network.group_parts(network.views[0], inputs))
        corrected = network.predict_view(network.views[0], logits)
        sampled = network.predict_view(network.views[0], logits, sampled=True)

    p = sampled["click"]
    torch.testing.assert_close(corrected["click"], p / (p + (1 - p) / 0.2))
    torch.testing.assert_close(corrected["purchase"] / corrected["click"], sampled["purchase"] / sampled["click"])


def test_calibration_keeps_purchases_no_more_likely_than_clicks(seed: int) -> None:
    network, inputs = make_network(seed=seed), to_inputs(draw_blocks(300, seed))
    for task in (CLICK, PURCHASE):
        network.calibrator(task).set_values(np.random.default_rng(seed).uniform(0.05, 3, 3).tolist())

    with torch.no_grad():
        actual = network(inputs)

    assert (actual["purchase"] <= actual["click"]).all()


def test_a_checkpoint_restores_the_calibration(seed: int) -> None:
    network = make_network(seed=seed)
    network.calibrator(CLICK).set_values([0.5, 2.0, -1.0])
    about = make_metadata(network, parent=None, created_ms=1, evaluation={}, positions={})

    restored = Checkpoint(metadata=about, weights=network.state_dict()).build_network()

    assert restored.calibrator(CLICK).to_dict() == {"low": 0.5, "high": 2.0, "shift": -1.0}


def test_calibrators_have_no_trainable_parameters(seed: int) -> None:
    network = make_network(seed=seed)

    assert not {name for name, _ in network.named_parameters() if "calibrator" in name}
    assert {name for name, _ in network.named_buffers() if "calibrator" in name}


@pytest.mark.parametrize("task", [PURCHASE, RELEVANCE, CATEGORY, DEMAND])
def test_only_a_binary_task_without_through_has_a_negative_rate(task: Task) -> None:
    check_tasks(TASKS, FEATURES)
    with pytest.raises(BadConfig, match="A negative rate should be that of a binary task"):
        check_tasks([CLICK, replace(task, negative_rate=0.5)], FEATURES)


@pytest.mark.parametrize("logit", [math.inf, -math.inf, 1e30, -1e30, 200.0, -200.0])
def test_extreme_logits_stay_finite(logit: float) -> None:
    calibrator = Calibrator(CLICK)
    calibrator.set_values([0.7, 1.4, 0.1])

    assert calibrator(torch.tensor([logit])).sigmoid().isfinite().all()


def test_a_checkpoint_from_before_regressions_were_calibrated_predicts_as_it_did() -> None:
    network = make_network(tasks=(DEMAND,))
    weights = {name: value[:0] if "calibrators" in name else value for name, value in network.state_dict().items()}
    metadata = make_metadata(network, parent=None, created_ms=1, evaluation={}, positions={})

    restored = Checkpoint(metadata=metadata, weights=weights).build_network()

    assert restored.calibrator(DEMAND).to_dict() == {"slope": 1.0, "offset": 0.0}
    assert weights["calibrators.of_demand.values"].numel() == 0
