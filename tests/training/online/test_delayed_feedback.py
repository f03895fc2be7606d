"""Delayed feedback: exact checks of the correction weights on enumerated streams of labels."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch

from contract.settings.worker import FeedbackSettings, LabelDelay
from contract.tasks import Task
from contract.units import DAY_MS, HOUR_MS, MINUTE_MS
from model.network import Network
from tests.model.small import CLICK, PURCHASE, make_network
from tests.training.examples import PLAN, make_examples
from training.data.examples import Examples
from training.online.delayed_feedback import (
    CORRECTION_MAX,
    DelayedFeedback,
    collect_delayed_feedback,
    find_corrections,
    predict_uncalibrated,
    weigh_corrections,
)
from training.online.incremental_pass import IncrementalPass, learn_progressively
from training.online.new_labels import NewLabels, find_new_labels
from training.trainer.batching import to_batch
from training.trainer.learner import Learner, compute_task_losses

DELAY = LabelDelay(HOUR_MS, 7 * DAY_MS)
DELAYS = {"purchase": DELAY}
DIRECT = Task("purchase", "binary", ("user", "context", "item"), "recommend")
UNCLICKED, EARLY, NOT_YET, LATE = range(4)
# by kind of row, of twenty with equal features: unclicked, bought early, never bought, bought late
SHARES = {0: (5, 3, 10, 2), 1: (0, 1, 9, 10), 2: (12, 0, 1, 7)}


def make_rows_at_stages(tasks: tuple[Task, ...], kinds: list[int], stages: list[int]) -> Examples:
    """Rows of these kinds, each with the labels that are known at its stage, and since when."""
    base = make_examples(60, 3, tasks).take(np.array(kinds, np.int64))
    stage, click_ms = np.array(stages), base.ts_ms + MINUTE_MS
    wait = np.choose(stage, [0, HOUR_MS // 2, HOUR_MS, 3 * DAY_MS])
    labels = {
        "click": (stage != UNCLICKED).astype(np.float32),
        "purchase": np.isin(stage, (EARLY, LATE)).astype(np.float32),
    }
    begin_ms = click_ms if len(tasks) > 1 else base.ts_ms
    known_ms = {"click": click_ms, "purchase": begin_ms + wait}
    names = [task.name for task in tasks]
    return replace(
        base,
        labels={name: labels[name] for name in names},
        known_ms={name: known_ms[name] for name in names},
        example_id=np.array([f"e{n}" for n in range(len(kinds))], object),
    )


def sum_gradient(network: Network, examples: Examples, feedback: DelayedFeedback) -> torch.Tensor:
    """The gradient of the purchase loss, summed over these rows."""
    batch = feedback.weigh(network, to_batch(examples), examples, len(examples))
    loss = compute_task_losses(network, batch)["purchase"] * len(examples)
    gradients = torch.autograd.grad(loss, list(network.parameters()), materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in gradients])


def as_new_labels(examples: Examples) -> NewLabels:
    """Examples whose labels are all new."""
    return find_new_labels(examples.to_rows(), examples)


def enumerate_rows(tasks: tuple[Task, ...]) -> tuple[Examples, Examples]:
    """All rows with their final labels, and the stream in which late ones are negative first and then corrected."""
    true, stream = list[tuple[int, int]](), list[tuple[int, int]]()
    for kind, shares in SHARES.items():
        for stage, count in enumerate(shares):
            if stage == UNCLICKED and len(tasks) == 1:
                continue
            true += [(kind, EARLY if stage == LATE else stage)] * count
            stream += [(kind, NOT_YET if stage == LATE else stage)] * count
            stream += [(kind, LATE)] * (count if stage == LATE else 0)
    return (make_rows_at_stages(tasks, *map(list, zip(*rows, strict=True))) for rows in (true, stream))  # type: ignore[return-value]


@pytest.mark.parametrize("tasks", [(CLICK, PURCHASE), (DIRECT,)], ids=["through a click", "of its own"])
@pytest.mark.parametrize("seed_of_network", [1, 2, 3])
def test_the_expected_gradient_is_that_of_final_labels(tasks: tuple[Task, ...], seed_of_network: int) -> None:
    network, (true, stream) = make_network(tasks=tasks, seed=seed_of_network), enumerate_rows(tasks)

    wanted = sum_gradient(network, true, DelayedFeedback())
    actual = sum_gradient(network, stream, DelayedFeedback(DELAYS))
    naive = sum_gradient(network, stream, DelayedFeedback())

    assert len(stream) == len(true) + sum(shares[LATE] for shares in SHARES.values())
    assert torch.allclose(actual, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
    assert float((naive - wanted).norm()) > 0.05 * float(wanted.norm())


def test_the_expected_gradient_is_exact_at_a_trained_network_too() -> None:
    tasks = (DIRECT,)
    network, (true, stream) = make_network(tasks=tasks), enumerate_rows(tasks)
    learner = Learner(network=network, config=PLAN)

    for _ in range(20):
        learner.train_step(to_batch(true))
    network.eval()

    wanted = sum_gradient(network, true, DelayedFeedback())
    actual = sum_gradient(network, stream, DelayedFeedback(DELAYS))
    assert torch.allclose(actual, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize("tasks", [(CLICK, PURCHASE), (DIRECT,)], ids=["through a click", "of its own"])
def test_corrections_weigh_more_and_other_rows_weigh_one(tasks: tuple[Task, ...]) -> None:
    network = make_network(tasks=tasks)
    examples = make_rows_at_stages(tasks, [0, 1, 2, 1], [UNCLICKED, EARLY, NOT_YET, LATE])

    batch = DelayedFeedback(DELAYS).weigh(network, to_batch(examples), examples, len(examples))

    probability = predict_uncalibrated(network, examples.take([3]), tasks[-1])[0]  # type: ignore[arg-type]
    assert batch.weights["purchase"][:3].tolist() == [1, 1, 1]
    assert float(batch.weights["purchase"][3]) == pytest.approx(1 / (1 - probability), rel=1e-5)
    assert set(batch.weights) == {"purchase"}


@pytest.mark.parametrize(("after_ms", "is_correction"), [(HOUR_MS, False), (HOUR_MS + 1, True)])
def test_a_purchase_is_a_correction_only_after_the_wait(after_ms: int, is_correction: bool) -> None:
    examples = make_rows_at_stages((CLICK, PURCHASE), [0], [EARLY])
    examples.known_ms["purchase"][:] = examples.known_ms["click"] + after_ms

    assert find_corrections(examples, PURCHASE, DELAY.wait_ms).tolist() == [is_correction]


def test_weights_are_finite_and_bounded_for_any_prediction() -> None:
    probabilities = np.array([0, 1e-9, 0.5, 0.9, 0.99, 1, np.nan], np.float32)

    actual = weigh_corrections(probabilities)

    assert np.isfinite(actual).all()
    assert actual.min() == 1
    assert actual.max() == CORRECTION_MAX
    assert actual[[2, 3]] == pytest.approx([2, 10], rel=1e-5)


def test_a_correction_in_the_update_of_its_first_label_weighs_one() -> None:
    network = make_network(tasks=(CLICK, PURCHASE))
    examples = make_rows_at_stages((CLICK, PURCHASE), [0, 1], [LATE, LATE])
    rows = [msgspec.structs.replace(row, revision=3) for row in examples.to_rows()]
    wait_ms = {"purchase": rows[0].known_ms["click"] + HOUR_MS}
    first = msgspec.structs.replace(
        rows[0], revision=2, labels={"click": 1.0, "purchase": 0.0}, known_ms=rows[0].known_ms | wait_ms
    )

    feedback = collect_delayed_feedback([find_new_labels([first, *rows], examples)], DELAYS)
    weights = feedback.weigh(network, to_batch(examples), examples, 2).weights["purchase"]

    assert feedback.unlearned_negatives == {("purchase", "e0")}
    assert float(weights[0]) == 1
    assert float(weights[1]) > 1


def test_replayed_rows_weigh_nothing_until_their_window_has_passed() -> None:
    network = make_network(tasks=(CLICK, PURCHASE))
    examples = make_rows_at_stages((CLICK, PURCHASE), [0, 1, 2], [UNCLICKED, LATE, NOT_YET])
    now_ms = int(examples.ts_ms[0]) + DELAY.window_ms
    examples.ts_ms[:] = now_ms - DELAY.window_ms + np.array([0, 0, 1])

    weights = DelayedFeedback(DELAYS, now_ms=now_ms).weigh(network, to_batch(examples), examples, 0).weights["purchase"]

    assert weights.tolist() == [1, 1, 0]


def test_the_present_is_the_latest_known_time() -> None:
    examples = make_rows_at_stages((CLICK, PURCHASE), [0, 1], [UNCLICKED, LATE])

    assert collect_delayed_feedback([as_new_labels(examples)], DELAYS).now_ms == examples.known_ms["purchase"].max()


def test_without_delayed_tasks_the_batch_is_unchanged() -> None:
    network, examples = make_network(tasks=(CLICK,)), make_rows_at_stages((CLICK,), [0, 1], [UNCLICKED, LATE])
    batch = to_batch(examples)

    assert DelayedFeedback().weigh(network, batch, examples, 2) is batch
    assert DelayedFeedback(DELAYS).weigh(network, batch, examples, 2) is batch  # this network has no delayed task
    assert collect_delayed_feedback([as_new_labels(examples)], {}) == DelayedFeedback()


def test_without_corrections_the_learned_weights_are_bit_equal() -> None:
    examples, states = make_examples(300, 4), list[dict[str, torch.Tensor]]()

    for feedback in (DelayedFeedback(), collect_delayed_feedback([as_new_labels(examples)], DELAYS)):
        network = make_network()
        increment = IncrementalPass(make_network(), examples, delayed_feedback=feedback)
        learn_progressively(Learner(network=network, config=PLAN), increment, PLAN)
        states.append(network.state_dict())

    assert all(torch.equal(weight, states[1][name]) for name, weight in states[0].items())


def test_the_delays_by_task_follow_from_the_settings() -> None:
    delayed = FeedbackSettings(purchase_wait_s=60, purchase_window_s=3_600).delays_by_task()

    assert delayed == {"purchase": LabelDelay(MINUTE_MS, HOUR_MS)}
