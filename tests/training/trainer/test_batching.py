import numpy as np

from training.trainer.batching import alternate_batches, mix_batches


def test_mixed_batches_have_rows_of_every_family_and_pass_large_ones_once(seed: int) -> None:
    family = np.repeat([0, 1], [1_000, 10])

    batches = list(mix_batches(family, 128, np.random.default_rng(seed)))

    assert all(8 <= (family[rows] == 1).sum() <= 9 for rows in batches)
    rows_of_epoch = np.concatenate(batches)
    assert sorted(rows_of_epoch[family[rows_of_epoch] == 0].tolist()) == list(range(1_000))


def test_alternating_batches_have_one_family_and_spread_each_over_the_epoch() -> None:
    family = np.array([0] * 1_000 + [1] * 300 + [2] * 5)

    batches = list(alternate_batches(family, 50, np.random.default_rng(1)))

    families = [set(family[rows].tolist()) for rows in batches]
    assert all(len(batch_families) == 1 for batch_families in families)
    assert set(np.concatenate(batches).tolist()) == set(range(len(family)))
    assert max(len(rows) for rows in batches) <= 50
    for number in (0, 1, 2):
        turns = [index for index, batch_families in enumerate(families) if batch_families == {number}]
        assert turns[0] < len(batches) / 2 <= turns[-1] + 1
    assert families[: len(families) // 4].count({1}) >= 1
