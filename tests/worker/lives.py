"""Lives of a worker in this process: the real protocol over real servers, that can be made to die in any step."""

import gc
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self

from contract.errors import StaleState, Unavailable
from tests.worker.signing import Signing
from tests.worker.stage import Stage
from worker.answers import Scorer
from worker.broker import Broker as Admin
from worker.caches import Caches
from worker.claims import Claims
from worker.doors import Doors, State
from worker.erasing import Erasing
from worker.intake import Intake, Place
from worker.lanes import LANES
from worker.patience import Patience
from worker.positions import Positions
from worker.profile_store import open_profiles
from worker.protocol import Dropped, Protocol
from worker.publisher import Publisher
from worker.recovery import Recovery
from worker.redis_cluster import connect
from worker.step import StepMark

WITHIN_S: Final = 90.0


class Died(BaseException):
    """The process ended here; nothing that comes after it ran. No error, so that nobody catches it."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What happens as a step begins for the so-manyth time in a life."""

    step: str
    time: int
    event: Callable[[], object]


def die() -> None:
    raise Died


class FatefulMark(StepMark):
    """A step mark to which something happens."""

    def __init__(self, fates: Sequence[Fate]) -> None:
        super().__init__()
        self.fates = list(fates)
        self.entered = dict[str, int]()

    def __call__(self, step: str) -> None:
        super().__call__(step)
        self.entered[step] = self.entered.get(step, 0) + 1
        for fate in [f for f in self.fates if (f.step, f.time) == (step, self.entered[step])]:
            self.fates.remove(fate)
            fate.event()


class Life:
    """One life of a worker of the orders lane, from joining its group to its end or death."""

    def __init__(
        self,
        stage: Stage,
        name: str = "life",
        *,
        instance: str = "0",
        fates: Sequence[Fate] = (),
        scorer: Scorer | None = None,
        keeps_house: bool = True,
        forgets: bool = False,
    ) -> None:
        settings, lane = stage.settings, LANES["orders"]
        self.keeps_house = keeps_house
        self.stop = threading.Event()
        self.mark = FatefulMark(fates)
        self.scorer = scorer or Signing(name)
        self.patience = Patience(self.stop, longest_s=0.1)
        self.client = connect(settings.redis)
        self.positions = Positions()
        group = f"{settings.kafka.group_prefix}-orders"
        transactional_id = f"{group}-{instance}" if settings.kafka.transactions else None
        self.profiles = open_profiles(self.client, settings.redis.prefix)
        self.intake = Intake(kafka=settings.kafka, group=group, instance=instance)
        state = State(
            profiles=self.profiles,
            claims=Claims(client=self.client, prefix=settings.redis.prefix, ttl_s=3_600),
            caches=Caches(client=self.client, prefix=settings.redis.prefix, lists=settings.lists),
        )
        self.erasing = None
        if forgets:
            self.erasing = Erasing(
                settings=settings, lane=lane, state=state, positions=self.positions, patience=self.patience
            )
            self.erasing.open()
            while not self.erasing.load():
                pass
        self.protocol = Protocol(
            settings=settings,
            lane=lane,
            scorer=self.scorer,
            doors=Doors(
                intake=self.intake,
                publisher=Publisher(
                    kafka=settings.kafka, transactional_id=transactional_id, patience=self.patience, step=self.mark
                ),
            ),
            state=state,
            recovery=Recovery(
                settings=settings,
                lane=lane,
                broker=Admin(kafka=settings.kafka),
                profiles=self.profiles,
                positions=self.positions,
                forgetting=self.erasing.forgetting if self.erasing else None,
            ),
            patience=self.patience,
            step=self.mark,
        )
        # Orders alone: a group that shares several topics balances their number, not who reads which.
        topics = [settings.topics.orders, *([settings.topics.erasures] if forgets else [])]
        self.intake.subscribe(topics, self.protocol)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.protocol.close()
        self.vanish()

    def step(self) -> None:
        """One batch, and what a worker does once a second."""
        self.protocol.step(lambda: time.time_ns() // 1_000_000)
        if self.erasing:
            self.erasing.tend(self.protocol)
        if self.keeps_house:
            try:
                self.protocol.advance()
                if self.erasing:
                    self.erasing.confirm(self.protocol)
            except (StaleState, Dropped) as error:
                self.protocol.recover(error)
            except Unavailable:  # a slot that is being moved, say: a worker leaves its house for later
                pass

    def work_until(self, done: Callable[[], bool]) -> None:
        """Step after step until `done`; fails after a minute."""
        deadline = time.monotonic() + WITHIN_S
        while not done():
            assert time.monotonic() < deadline, f"It should be done by now. Found {self.positions.folded}."
            self.step()

    def live_and_die(self) -> None:
        """Step after step until a fate ends this life, then vanish as a killed process does."""
        with suppress(Died):
            self.work_until(lambda: False)
        self.vanish()

    def vanish(self) -> None:
        """Leave nothing but what other processes know: no goodbye to the group, no aborted transaction."""
        self.client.close()
        if self.erasing:
            self.erasing.close()
        del self.erasing, self.protocol, self.intake, self.patience
        gc.collect()

    def has_read(self, ends: Mapping[Place, int]) -> bool:
        """Whether these partitions are answered and folded up to their ends."""
        p = self.positions
        return all(p.committed.get(place, 0) >= end and p.folded.get(place, 0) >= end for place, end in ends.items())

    def finish(self, ends: Mapping[Place, int]) -> None:
        """Work until all is read, and every bucket is brought up."""
        self.work_until(lambda: self.has_read(ends))
        self.protocol.advance()


class Running:
    """A life in a thread of its own, from entering the block to leaving it; what ended it otherwise is raised then."""

    def __init__(self, life: Life) -> None:
        self.life = life
        self._error: BaseException | None = None
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._run, name="life", daemon=True)

    def __enter__(self) -> Life:
        self._thread.start()
        return self.life

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._leave.set()
        if error is not None:
            self.life.stop.set()  # it may wait for what the test would have done next
        self._thread.join(WITHIN_S)
        if error is None:
            assert not self._thread.is_alive(), "A life should end when it is asked to."
            if self._error is not None:
                raise self._error

    def _run(self) -> None:
        try:
            with self.life:
                self.life.work_until(self._leave.is_set)
        except BaseException as error:
            self._error = error


def eventually(ready: Callable[[], object], found: Callable[[], object] = lambda: "that it did not") -> None:
    """Return once it is so; fails after a minute, and says what is `found` then."""
    deadline = time.monotonic() + WITHIN_S
    while not ready():
        assert time.monotonic() < deadline, f"It should have come to pass by now. Found {found()}."
        time.sleep(0.01)
