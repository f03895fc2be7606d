"""Lists of a bundle with a next-item part: its ranker orders them, and the network's probabilities stay in them."""

from collections.abc import Mapping

import numpy as np
import pytest

from contract.bundle import Bundle
from contract.errors import Unavailable
from contract.experiment import Trial
from contract.hashing import item_hash
from contract.messages import Recommendations
from contract.profiles.guest_items import KnownItems, without_guests
from contract.profiles.histories import LatestItems
from contract.profiles.slices import SliceWrites
from testkit.environment.tiny_bundle import make_golden, make_manifest, pack_npz, sigmoid, tiny_files
from testkit.environment.tiny_next_item import make_next_item_golden, next_item_files
from tests.worker.answers import read_answers, read_messages
from tests.worker.browsing_harness import BrowsingHarness, make_click_record
from tests.worker.events import FEATURES, make_product
from worker.model.experiment import TrialModel
from worker.model.onnx_model import Model
from worker.scoring.results import BatchResults

BY_COUNT: Mapping[str, float] = {"popularity": 3.0}  # log(1 + count): shares as 2 to 3 to 4 to 5
BY_RARITY: Mapping[str, float] = {"popularity": -3.0}


def load(files: Mapping[str, bytes], version: str = "v1") -> Model:
    return Model(Bundle(make_manifest(version), files), FEATURES)


def make_lane(*models: Model, length: int = 20) -> BrowsingHarness:
    """A lane with a serving model, and a canary for all users if there are two."""
    lane = BrowsingHarness(length=length)
    trial_models = [TrialModel(model, Trial(version=model.version, share=1.0)) for model in models[1:]]
    lane.scorer.activate(models[0], *trial_models)
    return lane


def item_ids(results: BatchResults) -> list[str]:
    (recommendations,) = read_messages(results, Recommendations)
    return [item.item_id for item in recommendations.items]


def test_a_list_is_in_the_ranker_s_order_and_has_the_network_s_probabilities() -> None:
    # when
    results = make_lane(load(next_item_files(BY_COUNT))).answer(make_click_record("c1", "i0"))
    # then
    ((recommendations, scored),) = read_answers(results, Recommendations)
    assert [item.item_id for item in recommendations.items] == ["i3", "i2", "i1", "i0"]
    np.testing.assert_allclose([item.score for item in recommendations.items], np.array([5, 4, 3, 2]) / 14, 1e-5)
    clicks = sigmoid(np.array([3, 2, 1, 0], np.float32))
    np.testing.assert_allclose([item.probability["click"] for item in recommendations.items], clicks, 1e-5)
    np.testing.assert_allclose(scored.scores["click"], clicks, 1e-6)
    assert (recommendations.degraded, recommendations.model_version) == (False, "v1")


def test_the_network_scores_the_items_of_the_list_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    model = load(next_item_files(BY_RARITY))
    lane, scored = make_lane(model, length=2), []
    run = model.run

    def note(graph: str, blocks: object, **extra: np.ndarray) -> object:
        if graph == "recommend":
            scored.append(len(extra["item_part"]))
        return run(graph, blocks, **extra)  # type: ignore[arg-type]

    monkeypatch.setattr(model, "run", note)
    # when
    results = lane.answer(make_click_record("c1", "i0"))
    # then
    assert item_ids(results) == ["i0", "i1"]
    assert scored[-1] == 2


def test_a_bundle_of_the_part_alone_makes_lists_that_are_not_degraded() -> None:
    # given a bundle that was learned from interactions alone
    names = ("neighbours.npz", "sequence.onnx", "ranker.onnx", "vectors.npz")
    files = {name: content for name, content in next_item_files(BY_COUNT).items() if name in names}
    golden = {"golden.npz": pack_npz(make_next_item_golden(weights=BY_COUNT))}
    # when
    results = make_lane(load(files | golden, "history")).answer(make_click_record("c1", "i0"))
    # then
    ((recommendations, scored),) = read_answers(results, Recommendations)
    assert [(item.item_id, item.probability) for item in recommendations.items] == [
        ("i3", {}),
        ("i2", {}),
        ("i1", {}),
        ("i0", {}),
    ]
    assert (recommendations.degraded, recommendations.model_version) == (False, "history")
    assert (scored.model_version, scored.scores) == ("history", {})


def test_a_bundle_without_the_part_takes_its_place_and_the_network_orders_lists_again() -> None:
    lane = make_lane(load(next_item_files(BY_RARITY)))
    assert item_ids(lane.answer(make_click_record("c1", "i0"))) == ["i0", "i1", "i2", "i3"]

    lane.scorer.activate(load({**tiny_files(), "golden.npz": pack_npz(make_golden(100.0))}, "v2"))

    assert item_ids(lane.answer(make_click_record("c2", "i0"))) == ["i3", "i2", "i1", "i0"]


def test_a_canary_has_the_candidates_and_the_ranker_of_its_own_part() -> None:
    lane = make_lane(load(next_item_files(BY_COUNT)), load(next_item_files(BY_RARITY), "v2"))

    results = lane.answer(make_click_record("c1", "i0"))

    (recommendations,) = read_messages(results, Recommendations)
    assert recommendations.model_version == "v2"
    assert [item.item_id for item in recommendations.items] == ["i0", "i1", "i2", "i3"]


def test_a_list_follows_the_catalogue_at_each_second() -> None:
    lane = make_lane(load(next_item_files(BY_COUNT)))
    lane.catalogue.put(make_product("i3", stock=0))
    lane.run_periodic()

    assert item_ids(lane.answer(make_click_record("c1", "i0"))) == ["i2", "i1", "i0"]


class LostHistories:
    """Histories in a Redis that does not answer at first."""

    def __init__(self) -> None:
        self.is_available = False

    def read(self, users: list[str], _: SliceWrites) -> KnownItems:
        if not self.is_available:
            raise Unavailable("redis should answer. Found: no answer.")
        items = np.full((len(users), 64), item_hash("i3"), np.uint64)
        return without_guests(LatestItems(items, np.ones(items.shape, np.uint8), np.ones(items.shape, np.uint32)))


def test_a_list_reads_the_whole_history_and_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # given a user who saw i3 64 times, and Redis that does not answer
    lane, histories = make_lane(load(next_item_files({"times_in_history": 1.0}))), LostHistories()
    monkeypatch.setattr(lane.refresher, "_user_histories", histories)
    with pytest.raises(Unavailable):
        lane.answer(make_click_record("c1", "i0"))
    lane.refresher.take_back()
    assert lane.refresher.count_waiting() == 1
    # when it answers
    histories.is_available = True
    results = lane.answer()
    # then the list knows the history, and the click that came after it
    (recommendations,) = read_messages(results, Recommendations)
    assert recommendations.items[0].item_id == "i3"
    assert [item.item_id for item in recommendations.items if item.why == "recent"] == ["i3", "i0"]
