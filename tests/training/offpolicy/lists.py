"""Served lists and their examples."""

from collections.abc import Mapping

from contract.features.packing import PackedBlock
from training.offpolicy.served_lists import ListReward, ServedList

ITEMS = ("i0", "i1", "i2", "i3")


def make_list(
    ident: str,
    *,
    user: str = "u",
    propensities: tuple[float, ...] = (1.0,) * len(ITEMS),
    groups: Mapping[str, PackedBlock] | None = None,
) -> ServedList:
    return ServedList(
        event_id=ident,
        kind="recommendation",
        user_id=user,
        ts_ms=1_000,
        features="f",
        groups=dict(groups or {}),
        items=ITEMS,
        propensities=propensities,
    )


def make_reward(list_id: str, item: str, labels: dict[str, float | str], *, revision: int = 0) -> ListReward:
    return ListReward(
        example_id=f"{list_id}~{item}",
        revision=revision,
        event_id=list_id,
        user_id="u",
        ts_ms=1_000,
        labels=labels,
        item_id=item,
    )
