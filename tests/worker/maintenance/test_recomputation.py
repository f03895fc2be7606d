"""Recomputed slices equal those that workers fold, for some entities and up to some offsets."""

from contract.profiles.entity_updates import Arrival
from contract.profiles.store import InMemoryProfileStore
from testkit.oracle.feeder import ProfileFeeder, list_entities, read_slices
from testkit.oracle.logs import make_random_log
from worker.maintenance.recomputation import Recomputation, TimedArrival


def make_timed_arrivals(arrivals: list[Arrival]) -> list[TimedArrival]:
    return [TimedArrival(arrival, 1_000 + arrival.offset) for arrival in arrivals]


def recompute(arrivals: list[Arrival], wanted: set[str], limits: dict[tuple[str, str], int]) -> Recomputation:
    recomputation = Recomputation(wanted=wanted.__contains__, last_offset=lambda *pair: limits.get(pair, 10**9))
    log = make_timed_arrivals(arrivals)
    for start in range(0, len(log), 70):
        recomputation.add(log[start : start + 70])
    return recomputation


def test_recomputing_some_entities_equals_one_pass_over_all(seed: int) -> None:
    # given
    arrivals = make_random_log(seed, 600)
    store, entities = InMemoryProfileStore(), list_entities(arrivals)
    ProfileFeeder(store).feed(arrivals)
    wanted = set(entities[::3])
    # when
    recomputation = recompute(arrivals, wanted, {})
    # then
    assert recomputation.slices == read_slices(store, [entity for entity in entities if entity in wanted])


def test_a_slice_is_recomputed_up_to_its_last_offset_and_others_beyond(seed: int) -> None:
    # given one slice that ends in the middle of its log
    arrivals = make_random_log(seed, 600)
    entity, source = "user:u1", "orders/0"
    middle = [a.offset for a in arrivals if a.source == source][20]
    earlier = [a for a in arrivals if a.source != source or a.offset <= middle]
    part, whole, entities = InMemoryProfileStore(), InMemoryProfileStore(), list_entities(arrivals)
    ProfileFeeder(part).feed(earlier)
    ProfileFeeder(whole).feed(arrivals)
    assert part.slices[entity][source] != whole.slices[entity][source]
    # when
    recomputation = recompute(arrivals, set(entities), {(entity, source): middle})
    # then
    assert recomputation.slices.pop(entity) == {**whole.slices[entity], source: part.slices[entity][source]}
    assert recomputation.slices == {other: slices for other, slices in whole.slices.items() if other != entity}


def test_a_slice_without_events_to_fold_does_not_exist(seed: int) -> None:
    # given
    arrivals = make_random_log(seed, 200)
    limits = {("user:u1", source): -1 for source in {arrival.source for arrival in arrivals}}
    # then
    assert recompute(arrivals, {"user:u1"}, limits).slices == {}


def test_the_kafka_timestamp_of_the_last_event_of_a_slice_is_known(seed: int) -> None:
    # given
    arrivals = [a for a in make_random_log(seed, 600) if a.source == "clicks/0"]
    # when
    recomputation = recompute(arrivals, {"user:u1"}, {})
    # then
    last = max(a.offset for a in arrivals if getattr(a.event, "user_id", "") == "u1")
    assert recomputation.last_kafka_ms == {("user:u1", "clicks/0"): 1_000 + last}
