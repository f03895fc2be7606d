"""The order of a part on new interactions, as the gate of updates judges it."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import torch

from contract.settings.training import TrainingConfig
from export.interactions import SCHEMA
from model.sequence.next_item import from_tensors, to_tensors
from tests.model.small import make_checkpoint, make_network
from tests.training.next_item.planted import fit_planted, plant_history
from training.next_item.histories import History
from training.next_item.judgement import judge_order
from training.online.promotion_gate import GateResult, check_ranked_order
from training.online.update import keep_next_item


def to_table(history: History) -> pa.Table:
    users, items = [f"u{user}" for user in history.user], [history.names[item].decode() for item in history.item]
    return pa.table([users, items, history.ts_ms.tolist()], schema=SCHEMA)


def test_the_gate_keeps_an_order_that_helps_and_refuses_one_that_is_worse() -> None:
    # given: interactions of other users of the same shop
    history = plant_history(seed=0, users=500)
    is_new = history.ts_ms >= np.quantile(history.ts_ms, 0.9)
    part = fit_planted().part
    assert part
    tensors = to_tensors(part)
    reversed_order = dict(tensors) | {"ranker.scale": torch.tensor(-1.0)}
    before, new = to_table(history.select(~is_new)), to_table(history.select(is_new))
    for judged, is_refused in ((tensors, False), (reversed_order, True)):
        # when
        result = GateResult()
        judgement = judge_order(judged, before, new, new_items_only=False, seed=0)
        reasons = check_ranked_order(result, judgement.lost, judgement.user)
        # then
        assert bool(reasons) == is_refused, judgement.evaluation
        assert "next_item" in result.metrics


def test_an_update_takes_the_candidates_own_order_where_the_ranked_one_is_worse_on_what_is_new() -> None:
    # given
    history = plant_history(seed=0, users=500)
    is_new = history.ts_ms >= np.quantile(history.ts_ms, 0.9)
    before, new = to_table(history.select(~is_new)), to_table(history.select(is_new))
    part = fit_planted().part
    assert part
    sound = replace(make_checkpoint(make_network()), next_item=to_tensors(part))
    worse = replace(sound, next_item=dict(sound.next_item) | {"ranker.scale": torch.tensor(-1.0)})
    # when
    kept, reset = (keep_next_item(checkpoint, before, new, TrainingConfig()) for checkpoint in (sound, worse))
    # then
    assert kept[0] is sound.next_item
    assert "The ranked order should not be worse" in reset[1].rejections[0]
    judgement = judge_order(reset[0], before, new, new_items_only=False, seed=0)
    assert len(judgement.lost) > 0
    assert not judgement.lost.any()
    assert from_tensors(reset[0]).evaluation["ndcg_20"] == part.evaluation["own_ndcg_20"]


def test_unknown_items_and_users_without_history_are_no_cases() -> None:
    part = fit_planted().part
    assert part
    new = pa.table([["a", "a", "b"], ["nothing", "i001", "i002"], [1, 2, 3]], schema=SCHEMA)
    judgement = judge_order(to_tensors(part), SCHEMA.empty_table(), new, new_items_only=False, seed=0)
    assert len(judgement.lost) == 0
    assert judgement.evaluation == {}


def test_few_cases_are_not_judged() -> None:
    assert check_ranked_order(GateResult(), np.ones(49), np.arange(49)) == []
    assert check_ranked_order(GateResult(), np.ones(50), np.arange(50)) != []
