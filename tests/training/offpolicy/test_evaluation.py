"""Off-policy evaluation on small simulated worlds; `python -m bench offpolicy` measures coverage over many."""

from dataclasses import replace

import numpy as np
import pytest

from contract.arrays import Floats
from contract.errors import BadData
from training.offpolicy.evaluation import evaluate_target
from training.offpolicy.logged_actions import LoggedActions, TargetChoices, encode_category, split_folds
from training.offpolicy.reward_model import predict_rewards
from training.stats.overlap import OverlapLimits

ROWS = 4_000
LIMITS = OverlapLimits()
LOGGED = np.array([0.4, 0.3, 0.2, 0.1])
TARGET = np.array([0.1, 0.2, 0.3, 0.4])
REWARD = np.array([0.05, 0.1, 0.2, 0.4])


def draw_logs(rng: np.random.Generator, logged: Floats = LOGGED) -> LoggedActions:
    """Rows of a policy with four actions, with all their probabilities."""
    action = rng.choice(4, ROWS, p=logged)
    row, choice = np.repeat(np.arange(ROWS), 4), np.tile(np.arange(4), ROWS)
    return LoggedActions(
        reward=(rng.random(ROWS) < REWARD[action]).astype(np.float64),
        propensity=logged[action],
        target=TARGET[action],
        unit=np.arange(ROWS),
        exposure=np.ones(ROWS),
        target_exposure=np.ones(ROWS),
        columns=action[:, None].astype(np.float64),
        categories=(0,),
        choices=TargetChoices(
            row, TARGET[choice], logged[choice], choice[:, None].astype(np.float64), np.ones(len(row))
        ),
    )


def test_every_estimate_finds_what_the_new_policy_would_have_earned(seed: int) -> None:
    evaluation = evaluate_target(draw_logs(np.random.default_rng(seed)), LIMITS)

    assert evaluation.refused == ()
    assert set(evaluation.estimates) == {"ips", "snips", "dr"}
    truth, former = float(TARGET @ REWARD), float(LOGGED @ REWARD)
    for estimate in evaluation.estimates.values():
        assert estimate.value == pytest.approx(truth, abs=0.08)
        assert estimate.low < estimate.value < estimate.high
        assert estimate.gain == pytest.approx(truth - former, abs=0.08)
        assert estimate.gain_low > 0
    assert evaluation.logged[0] == pytest.approx(former, abs=0.04)


def test_a_reward_model_makes_the_interval_narrower(seed: int) -> None:
    estimates = evaluate_target(draw_logs(np.random.default_rng(seed)), LIMITS).estimates

    assert estimates["dr"].high - estimates["dr"].low < estimates["ips"].high - estimates["ips"].low


def test_choices_that_the_logs_lack_are_refused_without_an_estimate(seed: int) -> None:
    evaluation = evaluate_target(draw_logs(np.random.default_rng(seed), np.array([0.5, 0.3, 0.2, 0.0])), LIMITS)

    assert evaluation.estimates == {}
    assert evaluation.overlap.uncovered == pytest.approx(0.4)
    assert "Found 40.0% with a propensity of 0" in evaluation.refused[0]


def test_missing_choices_are_noticed_from_the_logged_actions_alone(seed: int) -> None:
    logs = draw_logs(np.random.default_rng(seed), np.array([0.5, 0.3, 0.2, 0.0]))
    evaluation = evaluate_target(replace(logs, choices=None), LIMITS)

    assert evaluation.overlap.uncovered is None
    assert any("the logs lack choices" in sentence for sentence in evaluation.refused)


def test_rows_without_a_propensity_are_left_out_and_counted(seed: int) -> None:
    logs = draw_logs(np.random.default_rng(seed))
    propensity = logs.propensity.copy()
    propensity[:20] = (np.nan, 0.0) * 10
    evaluation = evaluate_target(replace(logs, propensity=propensity), LIMITS)

    assert (evaluation.overlap.unknown, evaluation.overlap.rows) == (20, ROWS)
    assert evaluation.refused == ()


def test_logs_without_propensities_or_of_one_unit_are_no_data(seed: int) -> None:
    logs = draw_logs(np.random.default_rng(seed))

    with pytest.raises(BadData, match="Found none in 4000 rows"):
        evaluate_target(replace(logs, propensity=np.full(ROWS, np.nan)), LIMITS)
    with pytest.raises(BadData, match="Found one"):
        evaluate_target(replace(logs, unit=np.zeros(ROWS, np.int64)), LIMITS)


def test_a_reward_is_predicted_without_the_rows_of_its_unit(seed: int) -> None:
    # given: the reward is a property of the unit, which the model could only memorise
    rng = np.random.default_rng(seed)
    logs = draw_logs(rng)
    unit = np.repeat(np.arange(ROWS // 100), 100)
    reward = rng.integers(0, 2, ROWS // 100)[unit].astype(np.float64)
    columns = unit[:, None].astype(np.float64)
    # when
    logs = replace(logs, unit=unit, reward=reward, columns=columns, categories=(0,), choices=None)
    predicted, expected = predict_rewards(logs, seed)
    # then
    assert np.array_equal(predicted, expected)
    assert abs(np.corrcoef(predicted, reward)[0, 1]) < 0.5


def test_the_same_seed_gives_the_same_predictions(seed: int) -> None:
    logs = draw_logs(np.random.default_rng(seed))

    assert np.array_equal(predict_rewards(logs, 1), predict_rewards(logs, 1))


def test_a_fold_keeps_the_rows_of_a_unit_together(seed: int) -> None:
    unit = np.random.default_rng(seed).integers(0, 20, 200)

    counts = np.zeros(200)
    for fitting, others in split_folds(unit, 5, seed):
        counts += others
        assert not set(unit[fitting]) & set(unit[others])
    assert (counts == 1).all()


def test_codes_of_a_category_are_by_frequency() -> None:
    codes, values = encode_category(np.array(["b", "a", "b", "c", "b", "a"]))

    assert values == ["b", "a", "c"]
    assert codes.tolist() == [0, 1, 0, 2, 0, 1]
