"""The lessons of the demo: what the model learns from history, and then from its own answers."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from contract.bundle import current_version
from demo.crew import Failed
from demo.happenings import ENCODE, Happening
from demo.site import Site
from demo.teller import Teller

REFUSED: Final = 3  # how `training follow` ends when the gate keeps the present model
WITHIN_S: Final = 240.0


class Lessons:
    """Runs the commands of training and export on a site, as anybody would run them."""

    def __init__(self, *, site: Site, teller: Teller) -> None:
        self._site, self._teller = site, teller

    @property
    def version(self) -> str:
        """Of the present bundle, empty before the first."""
        return current_version(self._site.bundles) or ""

    def from_history(self, history: Iterable[Happening], days: float) -> None:
        """Events to examples to a model to a bundle."""
        folder = self._site.folder
        events, examples, taken = (str(folder / name) for name in ("history.jsonl", "examples.pq", "taken.pq"))
        with self._teller.step(f"Living through {days:g} days of a simulated shop") as say:
            say(f"{write_history(Path(events), history):,} events")
        with self._teller.step("Turning history into examples, by the code that will serve") as say:
            said = self._run("training", "replay", events, "--out", examples, "--interactions", taken)
            say(f"{said['examples']:,} examples")
        with self._teller.step("Training the first model") as say:
            said = self._run("training", "fit", examples, "--interactions", taken)
            say(figures(said["evaluation"]))
        with self._teller.step("Exporting it to ONNX, checked against torch") as say:
            self._site.crew.finish("export", "export", "--latest", within_s=WITHIN_S)
            say(f"version {self.version}")

    def from_feedback(self) -> bool:
        """Learn from what came back; whether a better model was published. Raises `Failed` if there was no example."""
        with self._teller.step("Learning from the feedback") as say:
            words = ("training", "follow", "--once")
            finished = self._site.crew.finish("training follow", *words, within_s=WITHIN_S, statuses=(0, REFUSED))
            said = json.loads(finished.said)
            if finished.status == REFUSED:
                say(f"refused by the gate: {' '.join(said['refused'])}")
            elif said["version"] is None:
                raise Failed(f"There should be examples to learn from. Found: {finished.said}")
            else:
                say(f"{said['examples']:,} examples, version {self.version}")
        return finished.status != REFUSED

    def _run(self, *words: str) -> dict[str, Any]:
        """The last line that a command of training prints, which is JSON."""
        said: dict[str, Any] = json.loads(self._site.crew.finish(" ".join(words[:2]), *words, within_s=WITHIN_S).said)
        return said


def figures(evaluation: dict[str, dict[str, float]]) -> str:
    """How well each task is answered on what was held out."""
    shown = {task: of.get("auc", of.get("accuracy")) for task, of in evaluation.items()}
    return ", ".join(f"{task} {value:.2f}" for task, value in shown.items() if value is not None) + " (AUC or accuracy)"


def write_history(path: Path, happenings: Iterable[Happening]) -> int:
    """Write events as `training replay` reads them, a line each in the order of time; returns their number."""
    lines = [ENCODE({"kind": happening.kind, "event": happening.event}) for happening in happenings]
    path.write_bytes(b"\n".join(lines))
    return len(lines)
