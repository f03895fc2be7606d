"""Faults of the workers and the joiner: killed, asked to end, frozen, in any step; members that come and go."""

import time
from collections.abc import Callable
from typing import Final

from testkit.chaos.fleet import JOINER, FleetProcess
from testkit.chaos.scene import Course, Scene, wait_for
from testkit.kills.killed_process import STEPS_WITH_BATCH

HUNT_S: Final = 1.0
POLL_S: Final = 0.0001
SEND_EVERY_S: Final = 0.01
BRIEF_S: Final = (0.5, 3.0)
BEYOND_SESSION_S: Final = (8.0, 11.0)  # the run's session time-out is 6 s
DOWN_S: Final = (0.0, 0.0, 2.0, 8.0)  # short: its successor takes its place; long: another member does
SCORE_ROLES: Final = ("orders", "browsing")


def draw_down_s(scene: Scene) -> float:
    return scene.rng.choice(DOWN_S)


def hunt(scene: Scene, process: FleetProcess, step: str | None) -> None:
    """Return while the process is in the step, in any step with a batch if that does not come in time.

    A step takes less than a millisecond, so this waits for it and does nothing else but send events.
    """
    if step is None:
        return
    for wanted in ((step,), STEPS_WITH_BATCH):
        deadline_s = time.monotonic() + HUNT_S
        while (now_s := time.monotonic()) < deadline_s:
            send_s = now_s + SEND_EVERY_S
            while time.monotonic() < send_s:
                if process.process.step in wanted:
                    return
                time.sleep(POLL_S)
            scene.traffic.tick()


def kill(step: str | None) -> Callable[[Scene], Course]:
    def course(scene: Scene) -> Course:
        with scene.borrow(*(SCORE_ROLES if step else ())) as process:
            if process is None:
                return
            yield 0
            hunt(scene, process, step)
            if process.is_running:
                died_in = process.kill(draw_down_s(scene))
                scene.record(f"SIGKILL of the {process.role}" if process.role == JOINER else f"SIGKILL in {died_in}")

    return course


def freeze(step: str | None, durations_s: tuple[float, float]) -> Callable[[Scene], Course]:
    def course(scene: Scene) -> Course:
        with scene.borrow(*(SCORE_ROLES if step else ())) as process:
            if process is None:
                return
            hunt(scene, process, step)
            frozen_in = process.freeze()
            is_long = durations_s == BEYOND_SESSION_S
            where = f"the {JOINER}" if process.role == JOINER else frozen_in
            scene.record(f"frozen beyond the session in {where}" if is_long else f"frozen briefly in {where}")
            try:
                yield scene.rng.uniform(*durations_s)
            finally:
                process.thaw()

    return course


def terminate(scene: Scene) -> Course:
    with scene.borrow() as process:
        if process is not None:
            scene.record(f"SIGTERM of a process of role {process.role}")
            process.terminate(draw_down_s(scene))
            yield from wait_for(lambda: not process.is_running, within_s=30, step_s=0.1)


def join(scene: Scene) -> Course:
    """A third worker joins a lane for a while, and leaves by SIGTERM or SIGKILL."""
    role = scene.rng.choice(SCORE_ROLES)
    process = scene.fleet.add(role)
    process.is_borrowed = True
    scene.record("worker joins")
    try:
        yield scene.rng.uniform(10, 20)
    finally:
        process.is_wanted = False
        if scene.rng.random() < 0.5:
            process.terminate(0)
    yield from wait_for(lambda: not process.is_running, within_s=20, step_s=0.1)


def leave(scene: Scene) -> Course:
    """A worker is scaled down for a while."""
    with scene.borrow(*SCORE_ROLES) as process:
        if process is None:
            return
        scene.record("worker leaves")
        process.terminate(scene.rng.uniform(8, 16))
        yield from wait_for(lambda: not process.is_running, within_s=30, step_s=0.1)
