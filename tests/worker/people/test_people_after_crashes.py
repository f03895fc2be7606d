"""People are counted with the batches that workers merge: whatever step a worker dies in, each one once."""

from collections.abc import Sequence

import pytest

from contract.events.model import Order
from contract.events.reading import READERS
from contract.profiles.entity_updates import Arrival, to_updates
from tests.worker.environment import WorkerEnvironment
from tests.worker.signing_scorer import SigningScorer
from tests.worker.worker_lifecycle import InProcessWorker, StepEvent, raise_killed
from worker.people.redis_store import RedisPeopleStore
from worker.people.samples import InMemoryPeopleStore, PeopleStore
from worker.people.visits import SAMPLES

ITEMS = [f"i{n}" for n in range(5)]


def read_samples(store: PeopleStore) -> list[set[tuple[int, int, float]]]:
    samples = [store.read(sample, ITEMS) for sample in range(len(SAMPLES))]
    return [set(zip(s.item.tolist(), s.code.tolist(), s.rank.tolist(), strict=True)) for s in samples]


def count_in_memory(environment: WorkerEnvironment, salt: int) -> InMemoryPeopleStore:
    """The people of all orders on the topic."""
    store, orders = InMemoryPeopleStore(salt), list[Order]()
    for record in environment.read_records("orders"):
        order = READERS["orders"].read(record.value)
        assert isinstance(order, Order)
        orders.append(order)
    store.add(to_updates([Arrival("orders/0", n, order) for n, order in enumerate(orders)]))
    return store


@pytest.mark.parametrize("steps", [("publish", "merge", "cache")], ids="-".join)
def test_after_crashes_each_person_is_counted_once(
    apache_stage: WorkerEnvironment, seed: int, steps: Sequence[str]
) -> None:
    # given workers that each die with their second batch in flight
    stage = apache_stage
    for number, step in enumerate(steps):
        stage.send_orders(seed, 20, first=20 * number)
        events = [StepEvent(step, 2, raise_killed)]
        InProcessWorker(stage, scorer=SigningScorer(step), step_events=events).run_until_killed()
    # when a last one has finished
    with InProcessWorker(stage) as worker:
        worker.process_all(stage.end_offsets("orders"))
    # then
    (salt,) = stage.redis.pipeline([("GET", f"{stage.prefix}people:salt")])
    expected = read_samples(count_in_memory(stage, int(salt)))
    assert read_samples(RedisPeopleStore(client=stage.redis, prefix=stage.prefix)) == expected
    assert all(expected)
