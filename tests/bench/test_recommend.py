"""The recommendation bench: test cases, list quality, and lists as the worker caches them."""

import gzip
from pathlib import Path

import pytest

from bench.quality.recommend.baselines import RecommendBaselines
from bench.quality.recommend.command import OfflineRecommender, find_missed_aims, main, summarize_quality
from bench.quality.recommend.datasets import Case, ListQuality, RecommendDataset, evaluate_lists, read_diginetica
from worker.redis.client import RedisClient

BEGIN_MS = 1_700_000_000_000


def make_case(*items: str, targets: str = "x", excluded: str = "") -> Case:
    history = [(item, BEGIN_MS + number * 1_000) for number, item in enumerate(items)]
    return Case(history, frozenset(targets.split()), frozenset(excluded.split()))


def make_data(*sessions: str, cases: list[Case]) -> RecommendDataset:
    interactions = [
        (f"u{user}", item, BEGIN_MS + user * 100_000 + number * 1_000)
        for user, session in enumerate(sessions)
        for number, item in enumerate(session.split())
    ]
    return RecommendDataset("shop", "mrr", interactions, cases)


def test_list_quality_depends_on_targets_and_their_ranks() -> None:
    data = make_data("a b c d", cases=[make_case("a", targets="b"), make_case("a", targets="c")])

    actual = evaluate_lists([["b", "c"], ["a", "c"]], data)

    assert actual == ListQuality(recall_20=1.0, rank_20=0.75, coverage=0.75)


def test_excluded_items_take_no_place_of_a_list() -> None:
    data = make_data("a b", cases=[make_case("a", targets="b", excluded=" ".join(f"n{n}" for n in range(30)))])

    assert evaluate_lists([[*(f"n{n}" for n in range(30)), "b"]], data).rank_20 == 1.0
    assert evaluate_lists([[*(f"m{n}" for n in range(20)), "b"]], data).recall_20 == 0.0


def test_the_ideal_order_of_several_targets_has_ndcg_one() -> None:
    data = make_data("a b", cases=[make_case("a", targets="b c")])._replace(rank_metric="ndcg")

    assert evaluate_lists([["b", "c"]], data).rank_20 == pytest.approx(1.0)
    assert 0.5 < evaluate_lists([["n", "b", "c"]], data).rank_20 < 0.7


def test_each_prefix_of_a_session_is_a_case(tmp_path: Path) -> None:
    # given
    folder = tmp_path / "diginetica"
    folder.mkdir()
    for name, text in (("train_sessions", "1 2\n3\n"), ("test_prefix_target", "1 2\t3\n1\t2\n")):
        with gzip.open(folder / f"{name}.txt.gz", "wt") as file:
            file.write(text)
    # when
    actual = read_diginetica(tmp_path)
    # then
    assert [(user, item) for user, item, _ in actual.interactions] == [("s0", "i1"), ("s0", "i2"), ("s1", "i3")]
    assert [([item for item, _ in c.history], sorted(c.targets)) for c in actual.cases] == [
        (["i1", "i2"], ["i3"]),
        (["i1"], ["i2"]),
    ]


def test_missing_data_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path), "--sets", "diginetica"]) == 2
    assert "Diginetica should be at" in capsys.readouterr().err


def test_cached_lists_hold_items_that_followed_in_training(redis_url: str, tmp_path: Path) -> None:
    # given a shop in which b follows a, and y follows x
    data = make_data(
        *["a b"] * 150, *["x y x"] * 3, cases=[make_case("a", targets="b"), make_case("y", "x", targets="x")]
    )
    client = RedisClient(url=redis_url, timeout_s=10)
    # when
    first, second = OfflineRecommender(data, client, tmp_path).make_lists(data.cases)
    # then
    assert first[:2] == ["b", "a"]
    assert set(second[:2]) == {"x", "y"}
    assert client.pipeline([("EXISTS", "shop:rec:c0"), ("EXISTS", "shop:rec:c1")]) == [1, 1]


def test_baselines_use_the_training_part_only() -> None:
    # given
    data = make_data(
        *["a b"] * 3, "c d", cases=[make_case("a", "unheard of", targets="b"), make_case("c", targets="d")]
    )
    baselines = RecommendBaselines(data)
    # when
    lists = {name: [ranked[:2] for ranked in variant] for name, variant in baselines.rank_by_cooccurrence().items()}
    # then
    assert [ranked[0] for ranked in lists["without"]] == ["b", "d"]
    assert [set(ranked) for ranked in lists["with own"]] == [{"a", "b"}, {"c", "d"}]
    assert [ranked[:2] for ranked in next(iter(baselines.rank_by_popularity().values()))] == [["a", "b"]] * 2


def test_a_lead_within_the_spread_over_seeds_does_not_count() -> None:
    rows = {
        "ours": summarize_quality([ListQuality(0.30, 0.2, 1.0)]),
        "popularity": summarize_quality([ListQuality(0.10, 0.1, 1.0)]),
        "cooccurrence": summarize_quality([ListQuality(0.29, 0.1, 1.0)]),
        "library": summarize_quality([ListQuality(0.27, 0.1, 1.0), ListQuality(0.31, 0.1, 1.0)]),
    }
    actual = list(find_missed_aims({"shop": rows}))

    assert rows["library"]["recall_20"] == [0.29, 0.02]
    assert [sentence.partition(" of ours")[0] for sentence in actual] == ["shop: recall_20"]
