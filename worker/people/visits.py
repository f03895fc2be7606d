"""Who clicked or bought which items in a batch: each person counts once for an item, by the latest visit.

A person is the user of an event, or the address of a guest: unlike the id of a device it cannot be invented. An event
with neither does not count, nor does one that an erasure of its user covers.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from contract.events.guests import GUEST_PREFIX
from contract.profiles.entity_updates import UpdateBatch
from contract.profiles.record import ENTITY_KINDS, FAMILIES
from contract.units import DAY_MS

USER, ITEM = ENTITY_KINDS.index("user"), ENTITY_KINDS.index("item")
CLICKS, ORDERS = FAMILIES.index("clicks"), FAMILIES.index("orders")
SAMPLES: Final = ("people", "buyers")  # of an item: those who clicked or bought, and those who bought
PEOPLE, BUYERS = range(len(SAMPLES))
CODE_BITS: Final = 20
HALF_LIFE_MS: Final = DAY_MS  # of the weight by which a person stays in a sample
MULTIPLIERS: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))  # of splitmix64
GUEST_ENTITY: Final = f"user:{GUEST_PREFIX}"


class Visits(NamedTuple):
    """V visits to items, each person once for an item and sample, sorted by bucket, sample and item.

    `item` (V): index into `items`; `sample` (V): index into `SAMPLES`; `code` (V) of the person; `rank` (V).
    """

    items: list[str]
    bucket: npt.NDArray[np.int64]
    sample: npt.NDArray[np.int64]
    item: npt.NDArray[np.int64]
    code: npt.NDArray[np.int64]
    rank: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.item)


def collect_visits(updates: UpdateBatch, salt: int) -> Visits:
    """The visits of a batch. `salt`: of the codes."""
    rows = np.flatnonzero(updates.kind[updates.entity] == ITEM)
    arrival = np.searchsorted(updates.start, rows, "right") - 1
    family = updates.event_columns[arrival, 2]
    person = find_people(updates)[arrival]
    bought = np.flatnonzero((person >= 0) & (family == ORDERS))
    clicked = np.flatnonzero((person >= 0) & (family == CLICKS))
    chosen = np.concatenate([clicked, bought, bought])
    sample = np.repeat([PEOPLE, BUYERS], [len(clicked) + len(bought), len(bought)])
    item, person = updates.entity[rows[chosen]], person[chosen]
    code = encode_people(updates.id_hash[person], updates.id_hash[item], salt)
    rank = rank_visits(updates.event_columns[arrival[chosen], 0], code)
    bucket = updates.bucket[item]
    # One number that ascends by bucket, sample, item and code, since sorting by each of them takes longer.
    visit = (((bucket * len(SAMPLES) + sample) * len(updates.entities) + item) << CODE_BITS) | code
    order = np.lexsort((rank, visit))
    is_latest = np.ones(len(order), np.bool_)
    is_latest[:-1] = np.diff(visit[order]) != 0
    latest = order[is_latest]
    numbers, item = np.unique(item[latest], return_inverse=True)
    names = [updates.entities[number][len("item:") :] for number in numbers.tolist()]
    return Visits(names, bucket[latest], sample[latest], item, code[latest], rank[latest])


def find_people(updates: UpdateBatch) -> npt.NDArray[np.int64]:
    """(N) The entity that stands for the person of each arrival, -1 for none."""
    user, address = updates.find_first("user"), updates.find_first("ip")
    if not len(updates.entity):
        return user
    is_guest = np.zeros(len(updates.entities), np.bool_)
    users = np.flatnonzero(updates.kind == USER)
    is_guest[users] = [updates.entities[number].startswith(GUEST_ENTITY) for number in users.tolist()]
    row = np.where((user >= 0) & ~is_guest[updates.entity[user]], user, address)
    counts = (row >= 0) & ((user < 0) | updates.is_folded[user])
    return np.where(counts, updates.entity[row], -1)


def encode_people(people: npt.NDArray[np.uint64], items: npt.NDArray[np.uint64], salt: int) -> npt.NDArray[np.int64]:
    """The code of each person (V,) at an item: 20 bits, as many as links keep of an erased user.

    The salt keeps people from choosing ids that a sample prefers. The codes of a person at two items are unrelated.
    """
    mixed = people ^ (items * MULTIPLIERS[0]) ^ np.uint64(salt)
    for multiplier, shift in zip(MULTIPLIERS, (30, 27), strict=True):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * multiplier
    mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(64 - CODE_BITS)).astype(np.int64)


def rank_visits(ts_ms: npt.NDArray[np.int64], code: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The rank of each visit (V,) in the sample of its item: higher for a later one, and by the hash of the person.

    Priority sampling (Duffield, Lund and Thorup 2007) by weights that decay forward (Cormode et al. 2009): time
    changes the order of no two visits, so a sample is the same in whatever order they come.
    """
    rank: npt.NDArray[np.float64] = ts_ms / HALF_LIFE_MS - log_hash(code)
    return rank


def log_hash(code: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The binary logarithm of the number between 0 and 1 that a code stands for."""
    logarithm: npt.NDArray[np.float64] = np.log2((code + 0.5) / (1 << CODE_BITS))
    return logarithm
