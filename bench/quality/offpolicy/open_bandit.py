"""Open Bandit (Saito, Aihara, Matsutani and Narita 2021): impressions of a shop under two policies with propensities.

What one policy would have earned is estimated from the other's logs, and compared with what it did earn. The uniform
policy's probabilities are known. Those of the learned one, Bernoulli Thompson sampling, are logged for the shown item
alone: as a target it is how often it showed each item at a place, in its own logs, whose clicks are not used for it.
"""

from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from bench.quality.offpolicy.worlds import add_choices
from contract.arrays import Array, Floats, Integers, Strings
from training.offpolicy.logged_actions import LoggedActions, encode_category

FILE: Final = Path("open_bandit/obd_sample.parquet")
POLICIES: Final = ("random", "bts")
FEATURES: Final = tuple(f"user_feature_{number}" for number in range(4))


class Impressions(NamedTuple):
    """Impressions of one policy; arrays (N,), `context` (N, 5): the place and the codes of the user's features."""

    campaign: Strings
    place: Integers
    item: Integers
    click: Floats
    propensity: Floats
    context: Floats

    def select(self, rows: Array) -> "Impressions":
        return Impressions(
            campaign=self.campaign[rows],
            place=self.place[rows],
            item=self.item[rows],
            click=self.click[rows],
            propensity=self.propensity[rows],
            context=self.context[rows],
        )


def read_impressions(path: Path) -> dict[str, Impressions]:
    """The impressions of each policy."""
    table = pq.read_table(path)
    columns = {name: np.array(table.column(name).to_pylist()) for name in ("policy", "campaign", *FEATURES)}
    place, item = (table.column(name).to_numpy().astype(np.int64) for name in ("position", "item_id"))
    features = [encode_category(columns[name])[0] for name in FEATURES]
    impressions = Impressions(
        campaign=columns["campaign"].astype(np.object_),
        place=place,
        item=item,
        click=table.column("click").to_numpy().astype(np.float64),
        propensity=table.column("propensity_score").to_numpy().astype(np.float64),
        context=np.column_stack([place.astype(np.float64), *features]),
    )
    return {policy: impressions.select(columns["policy"] == policy) for policy in POLICIES}


def estimate_choices(policy: str, own: Impressions, logs: Impressions) -> Floats:
    """The probability (N, items) with which a policy shows each item in the place of each row of the other's logs."""
    items = 1 + int(max(own.item.max(), logs.item.max()))
    probabilities = np.zeros((len(logs.item), items))
    for campaign in np.unique(logs.campaign).tolist():
        offered = np.unique(np.concatenate([side.item[side.campaign == campaign] for side in (own, logs)]))
        for place in np.unique(logs.place).tolist():
            rows = np.flatnonzero((logs.campaign == campaign) & (logs.place == place))
            if policy == "random":
                probabilities[np.ix_(rows, offered)] = 1 / len(offered)
                continue
            shown = own.item[(own.campaign == campaign) & (own.place == place)]
            probabilities[rows] = np.bincount(shown, minlength=items) / len(shown)
    return probabilities


def transfer(policy: str, impressions: dict[str, Impressions], campaign: str | None) -> LoggedActions:
    """The other policy's logs, of one campaign or of all, with `policy` as the target."""
    (other,) = (name for name in POLICIES if name != policy)
    own, logs = (
        side.select(np.full(len(side.item), campaign is None) | (side.campaign == campaign))
        for side in (impressions[policy], impressions[other])
    )
    rows = np.arange(len(logs.item))
    probabilities = estimate_choices(policy, own, logs)
    actions = LoggedActions(
        reward=logs.click,
        propensity=logs.propensity,
        target=probabilities[rows, logs.item],
        unit=rows,
        exposure=np.ones(len(rows)),
        target_exposure=np.ones(len(rows)),
        columns=np.column_stack([logs.context, encode_category(logs.campaign)[0]]),
    )
    # the uniform policy's propensities are equal for all items; of the learned one those of other items are not logged
    propensities = np.broadcast_to(logs.propensity[:, None], probabilities.shape) if other == "random" else None
    return add_choices(actions, logs.item, probabilities, propensities)
