"""What is worth looking at when the demo has ended: a list, decisions, dead letters, speed, models, addresses."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.table import Table

from contract.rows import ACTIONS, Decision, Recommendations
from demo.live import Live
from demo.people import Person
from demo.shop import Shop
from demo.site import Site

ITEMS_SHOWN: Final = 8
DECISIONS_SHOWN: Final = 3  # of each action


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the demo has to show. `versions`: of the model before and after feedback."""

    site: Site
    shop: Shop
    live: Live
    versions: tuple[str, str]
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
    found, sent = outcome.site.witness.dead_letters, outcome.live.tally.malformed
    table = Table(title="Dead letters by reason")
    for column in ("reason", "sent malformed", "found"):
        table.add_column(column, justify="left" if column == "reason" else "right")
    for reason in sorted(found | sent):
        table.add_row(reason, str(sent[reason]), str(found[reason]))
    console.print(table)


def show_models(console: Console, outcome: Outcome) -> None:
    """Both models, what they learned from, and how many decisions carry them."""
    decided = [decision.model_version for decision in outcome.site.witness.decisions.values()]
    table = Table(title="The model before and after feedback")
    for column in ("version", "learned from", "decisions"):
        table.add_column(column, justify="right" if column == "decisions" else "left", no_wrap=True)
    for version, origin in zip(outcome.versions, ("history", "history and feedback"), strict=True):
        table.add_row(version, origin, str(decided.count(version)))
    console.print(table)


def show_figures(console: Console, outcome: Outcome) -> None:
    """How much there was of everything, how fast, and whether people liked it."""
    live, witness = outcome.live, outcome.site.witness
    busy = {name: probe.value("process_cpu_seconds_total") for name, probe in live.probes.items()}
    console.print(
        f"Throughput: {live.tally.records / live.seconds:,.0f} events/s over {live.seconds:.1f} s, as fast as the shop "
        "sent them; CPU seconds of each process: " + ", ".join(f"{name} {cpu_s:.1f}" for name, cpu_s in busy.items())
    )
    labels = ", ".join(f"{count:,} {task}" for task, count in sorted(witness.labels().items()))
    console.print(f"Examples: {len(witness.examples):,} (labels: {labels})")
    ours, theirs = live.tally.ours, live.tally.theirs
    console.print(
        f"Items at home that were clicked: {ours.rate:.1%} of {ours.shown:,} on our lists, {theirs.rate:.1%} of "
        f"{theirs.shown:,} on the shop's own, for users who had no list yet"
    )
    console.print(f"The whole took {outcome.seconds:.1f} s.")


def show_addresses(console: Console, outcome: Outcome) -> None:
    for name, probe in outcome.live.probes.items():
        console.print(f"Metrics of {name}: {probe.url}/metrics", soft_wrap=True)
    settings = outcome.site.settings
    console.print(f"Kafka: {settings.kafka.bootstrap_servers}   Redis: {settings.redis.url}", soft_wrap=True)
