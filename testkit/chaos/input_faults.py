"""What comes in wrongly: poison, repeated events, wrong clocks; and what operators ask for: erasures, new bundles."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from contract.bundle import publish
from contract.errors import BadBundle
from contract.units import MINUTE_MS
from devservers.process import ChildProcess
from testkit.chaos.kafka_faults import send_poison
from testkit.chaos.scene import Course, Scene, wait_for
from testkit.environment.tiny_bundle import make_manifest, publish_tiny, tiny_files

STEPS_MS: Final = (-4 * MINUTE_MS, -30_000, 30_000, 4 * MINUTE_MS)
DISK_BYTES: Final = (0, 100, 700)  # of a file, after which the disk is full
THRESHOLD: Final = 20.0  # near the price of two frequent lines
THRESHOLD_STEP: Final = 0.1
REBUILD_S: Final = 40.0


def poison(scene: Scene) -> Course:
    scene.record("poison records")
    send_poison(scene)
    yield 0


def repeat_events(scene: Scene) -> Course:
    scene.record("events repeated")
    for _ in range(4):
        for lane in scene.traffic.producers:
            scene.traffic.resend(lane, scene.rng.randint(1, 6))
        yield scene.rng.uniform(0, 1)


def step_clock(scene: Scene) -> Course:
    """The senders' clock is wrong for some seconds."""
    step_ms = scene.rng.choice(STEPS_MS)
    scene.record("clock ahead" if step_ms > 0 else "clock behind")
    scene.traffic.clock.step(step_ms)
    try:
        yield scene.rng.uniform(2, 8)
    finally:
        scene.traffic.clock.step(-step_ms)


def erase_users(scene: Scene) -> Course:
    scene.record("users erased")
    scene.traffic.erase(scene.rng.randint(1, 4))
    yield 0


def swap_bundle(scene: Scene) -> Course:
    scene.record("bundle swapped")
    publish_version(scene)
    yield 0


def rebuild_state(scene: Scene) -> Course:
    """The state is rebuilt into a new generation; what ends it early leaves the present one serving.

    Not after a topic was recreated: the rebuilt state lacks what the deleted one had.
    """
    if scene.has_recreated_topics:
        return
    scene.record("state rebuilt")
    child = ChildProcess(
        command=[sys.executable, "-m", "worker", "rebuild"],
        output=scene.environment.folder / "rebuild.log",
        environment=scene.environment.env_variables(),
    )
    child.start()
    try:
        yield from wait_for(lambda: not child.is_running, within_s=REBUILD_S, step_s=0.2)
    finally:
        child.kill()


def fill_disk(scene: Scene) -> Course:
    """A bundle is published where the disk has no room for it."""
    scene.record("disk full for a bundle")
    version = f"v{len(scene.bundle_thresholds)}-unfinished"
    files = tiny_files(0.0)
    with suppress(BadBundle), limit_files(scene.rng.choice(DISK_BYTES)):
        publish(scene.environment.bundles, make_manifest(version), files)
    yield 0


def publish_version(scene: Scene) -> None:
    """Publish a bundle whose scores differ from those of all others."""
    version = f"v{len(scene.bundle_thresholds)}"
    scene.bundle_thresholds[version] = THRESHOLD + THRESHOLD_STEP * len(scene.bundle_thresholds)
    publish_tiny(scene.environment.bundles, version, scene.bundle_thresholds[version])


@contextmanager
def limit_files(bytes_max: int) -> Iterator[None]:
    """No file of this process may grow above this size, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_max, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
