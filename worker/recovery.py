"""Recovery, the one path that is always used: where each partition starts, and how to go back to what Redis has.

On assignment, and whenever Redis is not what this worker last wrote, every partition starts at
min(committed, merged of every bucket): what is not merged is folded, what is committed is not answered again.
"""

import logging
from collections.abc import Callable, Iterable, Mapping

from contract.errors import StaleState, Unavailable
from contract.hashing import BUCKETS
from contract.memory import Merged
from contract.settings import Settings
from worker import metrics
from worker.broker import Broker
from worker.forgetting import Forgetting
from worker.intake import Held, Intake, Place
from worker.lanes import Lane
from worker.positions import Positions, Start, refuse_another_log, refuse_loss, start_of
from worker.profile_store import RedisProfiles, source_name

log = logging.getLogger(__name__)


class Recovery:
    """Fills `positions` from what Kafka and Redis hold, and says where to start."""

    def __init__(
        self,
        *,
        settings: Settings,
        lane: Lane,
        broker: Broker,
        profiles: RedisProfiles,
        positions: Positions,
        forgetting: Forgetting | None = None,
    ) -> None:
        self.forgetting = forgetting
        self._kinds, self._lane = settings.topics.kinds(), lane
        self._broker, self._profiles = broker, profiles
        self.positions = positions
        self._accepts_loss = settings.worker.on_lost_log == "accept"

    def begin(self, places: Iterable[Place], intake: Intake) -> dict[Place, int]:
        """The offset at which to start in each of these partitions; raises `LostLog`, or `Unavailable`.

        Who holds no others goes over to the generation of the state that serves; else `StaleState` if it is another.
        """
        asked = list(places)
        before = {place: self.positions.sources[place] for place in asked if place in self.positions.sources}
        self.positions.forget(asked)
        held, sources = self._ask(asked, intake)
        # What the group committed of a topic that is gone says nothing of the one that took its name meanwhile.
        for place in (p for p in before if before[p] != sources[p]):
            held[place] = held[place]._replace(committed=None)
        merged, begins = self._recall(sources.values())
        if self.forgetting:
            self.forgetting.begin(sources, merged)
        starts = {
            place: self._start(place, held[place], sources.get(place), merged, begins.get(sources.get(place, ""), 0))
            for place in asked
        }
        self._write_down(sources, held, starts, merged)
        for place, start in starts.items():
            log.info("Starting %s/%d at %d, answering from %d.", *place, start.offset, start.committed)
            self.positions.committed[place] = start.committed
            if place in sources:
                self.positions.sources[place] = sources[place]
                self.positions.folded[place] = start.offset
        self.positions.note_merged(merged)
        return {place: start.offset for place, start in starts.items()}

    def ask_for_changes(self, places: Iterable[Place]) -> Callable[[], None]:
        """Ask whether these partitions, whose records are here, are those that they were when they came.

        The client goes on where it was, also in a topic that was deleted and created anew meanwhile. What is returned
        waits for the answer; it raises `StaleState`, or `Unavailable`, and then it may be called again.
        """
        folded = [place for place in places if place in self.positions.sources]
        answers = [self._ask_names(folded)]

        def check() -> None:
            names = (answers.pop() if answers else self._ask_names(folded))()
            for place, name in names.items():
                if name != (expected := self.positions.sources.get(place, name)):
                    raise StaleState(f"{place.topic}/{place.partition} should be {expected}. Found {name}.")

        return check

    def _ask(self, places: list[Place], intake: Intake) -> tuple[dict[Place, Held], dict[Place, str]]:
        """What Kafka knows of partitions, and the sources that they are, of one and the same topics."""
        folded = [place for place in places if self._kinds[place.topic] in self._lane.folds]
        names, held = self._ask_names(folded)(), intake.held(places)
        if names != self._ask_names(folded)():
            raise Unavailable("Topics should stay while they are asked for. Found that one was created anew.")
        return held, names

    def _ask_names(self, places: list[Place]) -> Callable[[], dict[Place, str]]:
        answer = self._broker.ask_topic_ids({place.topic for place in places})

        def name() -> dict[Place, str]:
            ids = answer()
            return {p: source_name(self._kinds[p.topic], ids.get(p.topic), p.partition) for p in places}

        return name

    def _recall(self, sources: Iterable[str]) -> tuple[Merged, dict[str, int]]:
        """What is merged of these sources, and where they begin, in the generation that serves."""
        wanted = list(sources)
        while True:
            try:
                if not self.positions.committed:
                    self._profiles.take_up()
                begins = self._profiles.begins()
                return self._profiles.merged(wanted), begins
            except StaleState:  # another one serves since
                if self.positions.committed:
                    raise

    def _start(self, place: Place, held: Held, source: str | None, merged: Merged, begin: int) -> Start:
        if source is None:  # only watched: there is no state to bring up
            committed = held.committed if held.committed is not None and held.committed <= held.high else held.low
            return Start(max(held.low, committed), max(held.low, committed))
        known = [merged.get(bucket, {}).get(source) for bucket in range(BUCKETS)]
        refuse_another_log(place, held, known)
        start = start_of(held, known, begin)
        if start.lost:
            if not self._accepts_loss:
                refuse_loss(place, start)
            log.error("Going on without %d records of %s/%d that are gone.", start.lost, *place)
            metrics.LOST_RECORDS.inc(start.lost)
        return start

    def _write_down(
        self, sources: Mapping[Place, str], held: Mapping[Place, Held], starts: Mapping[Place, Start], merged: Merged
    ) -> None:
        """Note a log's beginning as merged where it is, before anything is committed.

        A bucket that knows nothing then always means lost state. Records that are gone for good are noted likewise.
        """
        begun = {
            bucket: {
                source: held[place].low
                for place, source in sources.items()
                if held[place].low > merged.get(bucket, {}).get(source, -1)
                and (starts[place].lost or source not in merged.get(bucket, {}))
            }
            for bucket in range(BUCKETS)
        }
        begun = {bucket: begins for bucket, begins in begun.items() if begins}
        if not begun:
            return
        try:
            self._profiles.merge({}, merged, begun)
        except StaleState as error:
            log.warning("Another worker wrote down the same beginning: %s", error)
        merged.update(self._profiles.merged(sources.values()))
