"""The recommendation bench: test cases, list quality, and lists as the worker caches them."""

import gzip
from pathlib import Path

import pytest

from bench.quality.recommend.baselines import RecommendBaselines
from bench.quality.recommend.command import find_missed_aims, main, summarize_quality
from bench.quality.recommend.datasets import (
    Case,
    ListQuality,
    RecommendDataset,
    evaluate_lists,
    read_amazon_beauty,
    read_diginetica,
)
from bench.quality.recommend.next_item_fit import fit
from bench.quality.recommend.offline_recommender import CaseHistories, OfflineRecommender
from contract.hashing import item_hash
from export.exporter import to_npz
from export.neighbours import find_neighbours
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

    assert actual == ListQuality(recall=1.0, rank=0.75, coverage=0.75)


def test_excluded_items_take_no_place_of_a_list() -> None:
    data = make_data("a b", cases=[make_case("a", targets="b", excluded=" ".join(f"n{n}" for n in range(30)))])

    assert evaluate_lists([[*(f"n{n}" for n in range(30)), "b"]], data).rank == 1.0
    assert evaluate_lists([[*(f"m{n}" for n in range(20)), "b"]], data).recall == 0.0


def test_the_ideal_order_of_several_targets_has_ndcg_one() -> None:
    data = make_data("a b", cases=[make_case("a", targets="b c")])._replace(rank_metric="ndcg")

    assert evaluate_lists([["b", "c"]], data).rank == pytest.approx(1.0)
    assert 0.5 < evaluate_lists([["n", "b", "c"]], data).rank < 0.7


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
    assert "A data set should be at" in capsys.readouterr().err


def test_cached_lists_hold_items_that_followed_in_training(redis_url: str, tmp_path: Path) -> None:
    # given a shop in which b follows a, and y follows x
    data = make_data(
        *["a b"] * 150, *["x y x"] * 3, cases=[make_case("a", targets="b"), make_case("y", "x", targets="x")]
    )
    client = RedisClient(url=redis_url, timeout_s=10)
    files = {"neighbours.npz": to_npz(find_neighbours(data.to_table())), "golden.npz": to_npz({})}
    # when
    first, second = OfflineRecommender(data, client, tmp_path, files).make_lists()
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
    data = make_data("a b", cases=[])
    qualities = {
        "ranked": [ListQuality(0.30, 0.2, 1.0)],
        "candidates": [ListQuality(0.29, 0.1, 1.0)],
        "popularity": [ListQuality(0.10, 0.1, 1.0)],
        "library": [ListQuality(0.27, 0.1, 1.0), ListQuality(0.31, 0.1, 1.0)],
    }
    rows = {name: summarize_quality(row, data) for name, row in qualities.items()}

    actual = list(find_missed_aims({"shop": rows}))

    assert rows["library"]["recall_20"] == [0.29, 0.02]
    assert [sentence.partition(" of ranked")[0] for sentence in actual] == ["shop: recall_20"]


def test_a_figure_below_its_aim_is_told() -> None:
    data = make_data("a b", cases=[])._replace(length=10, rank_metric="ndcg")
    rows = {"ranked": summarize_quality([ListQuality(0.08, 0.04, 1.0)], data)}

    assert list(find_missed_aims({"amazon_beauty": rows})) == [
        "amazon_beauty: ndcg_10 of ranked lists should be at least 0.047. Found 0.04."
    ]


def test_the_last_two_items_of_a_reviewer_are_not_for_training(tmp_path: Path) -> None:
    # given
    (tmp_path / "amazon_beauty").mkdir()
    with gzip.open(tmp_path / "amazon_beauty" / "Beauty.txt.gz", "wt") as file:
        file.write("1 5 6 7 8\n2 6 5 9\n")
    # when
    actual = read_amazon_beauty(tmp_path)
    # then
    assert [(user, item) for user, item, _ in actual.interactions] == [("u1", "i5"), ("u1", "i6"), ("u2", "i6")]
    assert [([item for item, _ in c.history], set(c.targets), set(c.excluded)) for c in actual.cases] == [
        (["i5", "i6", "i7"], {"i8"}, {"i5", "i6", "i7"}),
        (["i6", "i5"], {"i9"}, {"i6", "i5"}),
    ]
    assert actual.items == ["i5", "i6", "i7", "i8", "i9"]
    assert actual.measures == ("hr_10", "ndcg_10", "coverage")


def test_the_worker_reads_whole_histories_newest_first() -> None:
    data = make_data("a b", cases=[make_case("a"), make_case("a", "b", "a", "unheard of")])._replace(action="order")

    actual = CaseHistories(data, length=3).read(["c1", "c0"])

    assert actual.items[:, :4].tolist() == [
        [item_hash("unheard of"), item_hash("a"), item_hash("b"), 0],
        [item_hash("a"), 0, 0, 0],
    ]
    assert actual.actions[:, :4].tolist() == [[3, 3, 3, 0], [3, 0, 0, 0]]
    assert actual.seen_s[1, 0] == BEGIN_MS // 1000


def test_a_shop_with_too_few_cases_to_learn_from_is_told() -> None:
    data = make_data(*["a b"] * 5, cases=[make_case("a", targets="b")])

    with pytest.raises(RuntimeError, match="shop should give a next-item part"):
        fit(data, 0, print)
