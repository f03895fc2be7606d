"""`training offpolicy`: estimates from a table and from served lists, and refusals with a status of their own."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.bundle import read_bundle
from contract.features.packing import pack
from contract.messages import to_msgpack
from contract.profiles.erasures import NO_ERASURES
from model.network import Network
from tests.training.scoring.test_score import FEATURES, TASKS, folder, make_table, network
from training.__main__ import main
from training.commands import offpolicy
from training.data.tabular import examples_from_table
from training.offpolicy.served_lists import ListReward, ServedList
from training.scoring.bundle_scorer import BundleScorer
from training.trainer.learner import predict

__all__ = ["folder", "network"]  # fixtures of the tests of `training score`
PLACES = 3
ROWS = 4_000


@pytest.fixture
def table(folder: Path, seed: int) -> Callable[[float], Path]:
    """Writes logs of two equally likely actions; the new policy chooses the second one with the given probability."""

    def write(target: float, *, never: bool = False) -> Path:
        rng = np.random.default_rng(seed)
        action = rng.integers(0, 2, ROWS)
        reward = rng.random(ROWS) < np.where(action == 1, 0.4, 0.1)
        probability = np.where(action == 1, target, 1 - target)
        propensity = np.full(ROWS, 0.5)
        columns = {
            "clicked": reward.astype(float),
            "propensity": propensity,
            "target": probability * (0.5 if never else 1.0),
            "action": action.astype(str),
        }
        path = folder / "logs.parquet"
        pq.write_table(pa.table(columns), path)
        return path

    return write


def evaluate(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any], str]:
    status = main(["offpolicy", *words])
    printed = capsys.readouterr()
    return status, json.loads(printed.out.splitlines()[-1]) if printed.out else {}, printed.err


def test_a_table_of_logs_tells_what_a_new_policy_would_have_earned(
    table: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    status, printed, text = evaluate(capsys, "--table", str(table(0.9)), "--column", "reward=clicked")

    assert status == 0
    assert printed["refused"] == []
    for estimate in printed["estimates"].values():
        assert estimate["value"] == pytest.approx(0.37, abs=0.04)
        assert estimate["gain_low"] > 0
    assert "self-normalised" in text


def test_logs_without_overlap_are_refused_with_status_3_and_the_reasons(
    table: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    status, printed, text = evaluate(capsys, "--table", str(table(0.9, never=True)), "--column", "reward=clicked")

    assert (status, printed["estimates"]) == (3, {})
    assert "The mean weight should be 1: the logs lack choices of the new policy. Found 0." in text
    assert printed["refused"][0] in text


def test_limits_are_options(table: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--table", str(table(0.9)), "--column", "reward=clicked"]

    assert evaluate(capsys, *words, "--units-min", "100000")[0] == 3
    assert evaluate(capsys, *words, "--rewards-min", "100000")[0] == 3


def test_wrong_arguments_are_all_listed_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--column", "what=ever", "--since", "0", "--settle-days", "-1", "--examination", "0", "--lists", "0"]
    status, _, text = evaluate(capsys, *words, "--units-min", "-1", "--uncovered-max", "2")

    assert status == 2
    assert len(text.splitlines()) == 9


class FakeTopics:
    """The topics of scored rows and feedback with these values."""

    values: Mapping[str, list[bytes]] = {}

    def __init__(self, *, topic: str, **_: object) -> None:
        self._topic = topic

    def offsets_for_time(self, _: int) -> dict[str, int]:
        return {}

    def for_each(self, _: Mapping[str, int], handle: Callable[[bytes], None]) -> None:
        for value in self.values[self._topic]:
            handle(value)

    def close(self) -> None: ...


@pytest.fixture
def served(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of three items to the users of a table, all shown, of which every fourth first item was clicked."""
    blocks = examples_from_table(make_table(), FEATURES, TASKS).blocks
    lists, rewards = list[bytes](), list[bytes]()
    for number in range(len(blocks["user"])):
        ident, items = f"r{number}", tuple(f"i{number}-{place}" for place in range(PLACES))
        rows = np.arange(number, number + PLACES) % len(blocks["user"])
        groups = {group: pack(blocks[group].take([number])) for group in ("user", "context")}
        row = ServedList(
            event_id=ident,
            kind="recommendation",
            user_id=f"u{number}",
            ts_ms=1,
            features=FEATURES.digest,
            groups=groups | {"item": pack(blocks["item"].take(rows))},
            items=items,
            propensities=(1.0,) * PLACES,
        )
        lists.append(to_msgpack(row))
        for place, item in enumerate(items):
            reward = ListReward(
                example_id=f"{ident}~{item}",
                revision=0,
                event_id=ident,
                user_id=row.user_id,
                ts_ms=1,
                labels={"click": float(place == 0 and number % 4 == 0)},
                item_id=item,
            )
            rewards.append(to_msgpack(reward))
    FakeTopics.values = {"shop.scored": lists, "shop.feedback": rewards}
    monkeypatch.setattr(offpolicy, "FeedbackReader", FakeTopics)
    monkeypatch.setattr(offpolicy, "fetch_erasures", lambda settings: NO_ERASURES)


@pytest.mark.usefixtures("served")
def test_a_bundle_is_evaluated_on_served_lists_by_the_examination_of_places(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (version,) = (path.name for path in (folder / "bundles").iterdir() if path.is_dir() and path.name[0].isdigit())
    status, printed, _ = evaluate(capsys, version, "--since", "24", "--examination", "1", "0.8", "0.6")

    assert (status, printed["version"], printed["lists"]) == (0, version, 300)
    assert printed["overlap"]["uncovered"] == 0
    assert printed["logged"][0] == pytest.approx(1 / 4 / PLACES)
    assert printed["estimates"]["ips"]["value"] < printed["logged"][0]  # some clicked items move down


@pytest.mark.usefixtures("served")
def test_a_new_order_without_an_examination_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (version,) = (path.name for path in (folder / "bundles").iterdir() if path.is_dir() and path.name[0].isdigit())
    status, printed, text = evaluate(capsys, version)

    assert status == 3
    assert printed["overlap"]["uncovered"] > 0.1
    assert "with a propensity of 0 or an unknown one" in text


@pytest.mark.usefixtures("served")
def test_lists_of_other_features_or_with_sampled_negatives_are_no_data(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (version,) = (path.name for path in (folder / "bundles").iterdir() if path.is_dir() and path.name[0].isdigit())
    sampled = ListReward(
        example_id="r0~i0-0",
        revision=1,
        event_id="r0",
        user_id="u0",
        ts_ms=1,
        labels={"click": 0.0},
        item_id="i0-0",
        negative_rate=0.1,
    )
    values = FakeTopics.values
    FakeTopics.values = {**values, "shop.feedback": [*values["shop.feedback"], to_msgpack(sampled)]}
    assert "Found 1 examples of a lower rate" in evaluate(capsys, version)[2]
    FakeTopics.values = {**values, "shop.feedback": []}
    status, _, text = evaluate(capsys, version)

    assert status == 1
    assert "Found none in 300 lists, of which 0 were shown" in text


def test_pairs_are_scored_as_the_network_scores_them(network: Network, folder: Path) -> None:
    examples = examples_from_table(make_table(), FEATURES, TASKS)
    (version,) = (path.name for path in (folder / "bundles").iterdir() if path.is_dir() and path.name[0].isdigit())
    scorer = BundleScorer(read_bundle(folder / "bundles", version), FEATURES)
    users = {group: examples.blocks[group] for group in ("user", "context")}

    actual = scorer.score_pairs(users, examples.blocks["item"], np.arange(len(examples)))
    assert actual["click"] == pytest.approx(predict(network, examples)["click"], abs=1e-5)
