"""Users in experiments get the lists of their arms, and every list and row says which."""

from pathlib import Path

import msgspec
import pytest

from contract.bundle import read_bundle
from contract.experiment import VARIANT, Trial, assign_arm
from contract.messages import Recommendations, ScoredRow, to_json
from contract.settings.experiments import ExperimentSettings
from testkit.environment.tiny_bundle import ITEMS, publish_tiny
from tests.worker.browsing_harness import BrowsingHarness, make_click_record
from tests.worker.events import FEATURES
from worker.model.experiment import TrialModel
from worker.model.onnx_model import Model
from worker.scoring.results import BatchResults

USERS = [f"u{n}" for n in range(24)]


def make_experiment(**lists: float) -> ExperimentSettings:
    return ExperimentSettings.model_validate({"lists": lists})


def click(lane: BrowsingHarness) -> BatchResults:
    """Every user clicks three items, and gets a list for the last click."""
    records = [
        make_click_record(f"c-{user}-{item}", item, user, 3 * offset + place)
        for offset, user in enumerate(USERS)
        for place, item in enumerate(ITEMS[:3])
    ]
    lane.run_periodic()
    return lane.answer(*records)


def collect_lists(results: BatchResults) -> dict[str, tuple[ScoredRow, Recommendations]]:
    return {
        answer.message.user_id: (answer.scored, answer.message)
        for answer in results.answers
        if isinstance(answer.message, Recommendations)
    }


def test_each_user_gets_the_list_of_their_arm_and_it_says_which() -> None:
    lane = BrowsingHarness({"shorter": make_experiment(length=1)}, length=3)
    lists = collect_lists(click(lane))

    assert lists.keys() == set(USERS)
    for user, (scored, message) in lists.items():
        arm = assign_arm("shorter", 0.5, user)
        assert message.experiments == scored.experiments == {"shorter": arm}
        assert len(message.items) == len(scored.items) == (1 if arm == VARIANT else min(3, len(message.items)))
    assert {len(message.items) for _, message in lists.values()} == {1, 3}


def test_users_of_several_variants_get_all_their_settings() -> None:
    experiments = {"shorter": make_experiment(length=2), "fewer": make_experiment(candidates=3)}
    lane = BrowsingHarness(experiments, length=3, candidates=4)
    lists = collect_lists(click(lane))

    assert {tuple(message.experiments.values()) for _, message in lists.values()} == {  # type: ignore[union-attr]
        (first, second) for first in ("control", "variant") for second in ("control", "variant")
    }
    for user, (scored, message) in lists.items():
        assert message.experiments == {name: assign_arm(name, 0.5, user) for name in experiments}
        assert len(scored.items) <= 3 - (assign_arm("shorter", 0.5, user) == VARIANT)


def test_without_an_experiment_lists_and_rows_have_no_field_for_it() -> None:
    lane = BrowsingHarness()
    for scored, message in collect_lists(click(lane)).values():
        assert message.experiments is scored.experiments is msgspec.UNSET
        assert b"experiments" not in to_json(message)


def test_a_canary_is_an_experiment_with_its_version_as_name(tmp_path: Path) -> None:
    # given
    for version in ("v1", "v2"):
        publish_tiny(tmp_path, version)
    serving, canary = (Model(read_bundle(tmp_path, version), FEATURES) for version in ("v1", "v2"))
    lane = BrowsingHarness({"shorter": make_experiment(length=1)})
    trial = Trial(version="v2", share=0.5)
    lane.scorer.activate(serving, TrialModel(canary, trial))
    # when
    lists = collect_lists(click(lane))
    # then
    assert lists.keys() == set(USERS)
    for user, (scored, message) in lists.items():
        arm = "variant" if trial.includes(user) else "control"
        assert message.experiments == {"v2": arm, "shorter": assign_arm("shorter", 0.5, user)}
        assert (scored.model_version == "v2") == trial.includes(user)


@pytest.mark.parametrize("explore", [0.0, 0.5])
def test_a_variant_may_explore_more_or_less(explore: float) -> None:
    experiments = {"explore": make_experiment(explore=explore)}
    lane = BrowsingHarness(experiments, explore=0.25, length=4)
    generators = lane.refresher._candidate_generator

    assert generators.vary(experiments["explore"].override(lane.refresher._lists))._explored == 4 * explore
    assert generators._explored == 1
