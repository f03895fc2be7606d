"""What is worth looking at when the demo has ended: a list, decisions, dead letters, speed, models, addresses."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.table import Table

from contract.bundle import read_bundle
from contract.rows import ACTIONS, Decision, Recommendations
from demo.people import Person
from demo.probe import Probe
from demo.shop import Shop
from demo.site import Site
from demo.tally import Tally

ITEMS_SHOWN: Final = 8
DECISIONS_SHOWN: Final = 3  # of each action


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the demo has to show. `versions`: of the model before and after feedback; `live_s`: the live part alone."""

    site: Site
    shop: Shop
    tally: Tally
    probes: Mapping[str, Probe]
    versions: tuple[str, str]
    live_s: float
    seconds: float


def show(console: Console, outcome: Outcome) -> None:
    """Print all of it."""
    for part in (show_list, show_decisions, show_dead_letters, show_models, show_figures, show_addresses):
        console.print()
        part(console, outcome)


def show_list(console: Console, outcome: Outcome) -> None:
    """One user's list, as any process reads it from Redis."""
    person, found = a_reader(outcome)
    products = outcome.shop.catalogue()
    tastes = ", ".join(f"{c} {t:.1f}" for c, t in sorted(person.tastes.items(), key=lambda one: -one[1])[:2])
    table = Table(title=f"GET {outcome.site.settings.redis.prefix}rec:{person.user_id} (who truly likes {tastes})")
    for column in ("item", "title", "category", "P(click)", "P(purchase)", "why"):
        table.add_column(column, justify="right" if column.startswith("P(") else "left")
    for item in found.items[:ITEMS_SHOWN]:
        product = products[item.item_id]
        chances = [f"{item.probability.get(task, float('nan')):.3f}" for task in ("click", "purchase")]
        table.add_row(item.item_id, product.title, product.category or "-", *chances, item.why)
    console.print(table)
    console.print(f"{len(found.items)} items, list {found.recommendation_id}, model {found.model_version}")


def a_reader(outcome: Outcome) -> tuple[Person, Recommendations]:
    """The user with the newest list in Redis."""
    lists = [(p, made) for p in outcome.shop.people if (made := outcome.site.read_list(p.user_id))]
    return max(lists, key=lambda one: (one[1].source_ms, one[0].user_id))


def show_decisions(console: Console, outcome: Outcome) -> None:
    """Some decisions of each action, the most severe first."""
    table = Table(title="Decisions, as on the topic and in Redis")
    for column in ("order", "user", "action", "P(fraud)", "reasons"):
        table.add_column(column, justify="right" if column == "P(fraud)" else "left")
    for decision in some_decisions(outcome.site.witness.decisions):
        fraud = f"{decision.probability.get('fraud', float('nan')):.3f}"
        table.add_row(decision.event_id, decision.user_id, decision.action, fraud, "; ".join(decision.reasons) or "-")
    console.print(table)


def some_decisions(decisions: Mapping[str, Decision]) -> Iterator[Decision]:
    for action in reversed(ACTIONS):
        alike = [decision for decision in decisions.values() if decision.action == action]
        yield from sorted(alike, key=lambda one: (-len(one.reasons), -one.ts_ms))[:DECISIONS_SHOWN]


def show_dead_letters(console: Console, outcome: Outcome) -> None:
    """What could not be answered, beside what was sent malformed on purpose."""
    found, sent = outcome.site.witness.dead_letters, outcome.tally.malformed
    table = Table(title="Dead letters by reason")
    for column in ("reason", "sent malformed", "found"):
        table.add_column(column, justify="left" if column == "reason" else "right")
    for reason in sorted(found | sent):
        table.add_row(reason, str(sent[reason]), str(found[reason]))
    console.print(table)


def show_models(console: Console, outcome: Outcome) -> None:
    """Both models, and how each did on what it had not seen."""
    table = Table(title="The model before and after feedback")
    table.add_column("version")
    decided = [decision.model_version for decision in outcome.site.witness.decisions.values()]
    bundles = [read_bundle(outcome.site.bundles, version).manifest for version in outcome.versions]
    tasks = [task.name for task in bundles[0].tasks]
    for column in ("decisions", *(f"{task} AUC" for task in tasks)):
        table.add_column(column, justify="right")
    for manifest in bundles:
        figures = [f"{manifest.evaluation.get(task, {}).get('auc', float('nan')):.3f}" for task in tasks]
        table.add_row(manifest.version, str(decided.count(manifest.version)), *figures)
    console.print(table)


def show_figures(console: Console, outcome: Outcome) -> None:
    tally, witness = outcome.tally, outcome.site.witness
    labels = ", ".join(f"{count:,} {task}" for task, count in sorted(witness.labels().items()))
    busy = {name: probe.value("process_cpu_seconds_total") for name, probe in outcome.probes.items()}
    console.print(
        f"Throughput: {tally.records / outcome.live_s:,.0f} events/s over {outcome.live_s:.1f} s, as fast as the shop "
        f"sent them; CPU seconds since start: " + ", ".join(f"{name} {s:.1f}" for name, s in busy.items())
    )
    console.print(f"Examples: {len(witness.examples):,} ({labels})")
    console.print(
        f"Clicks for each item shown at home: {tally.ours.rate:.1%} on our lists ({tally.ours.shown:,} shown), "
        f"{tally.theirs.rate:.1%} on the shop's own for users without one ({tally.theirs.shown:,} shown)"
    )
    console.print(f"The whole took {outcome.seconds:.1f} s.")


def show_addresses(console: Console, outcome: Outcome) -> None:
    for name, probe in outcome.probes.items():
        console.print(f"Metrics of {name}: {probe.url}/metrics", soft_wrap=True)
    settings = outcome.site.settings
    console.print(f"Kafka: {settings.kafka.bootstrap_servers}   Redis: {settings.redis.url}", soft_wrap=True)
