"""The summary that the demo prints at its end: a list, decisions, dead letters, models, throughput, addresses."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.table import Table

from contract.messages import ACTIONS, Decision, Recommendations
from demo.environment import DemoEnvironment
from demo.live_phase import LivePhase
from demo.simulator.shop import ShopSimulator
from demo.simulator.users import User

ITEMS_SHOWN: Final = 8
DECISIONS_SHOWN: Final = 3  # of each action


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """The outcome of the demo. `versions`: of the model before and after the update from feedback."""

    environment: DemoEnvironment
    shop: ShopSimulator
    live_phase: LivePhase
    versions: tuple[str, str]
    elapsed_s: float


def print_summary(console: Console, result: DemoResult) -> None:
    """Print every section."""
    for print_section in (
        print_list,
        print_decisions,
        print_dead_letters,
        print_models,
        print_figures,
        print_addresses,
    ):
        console.print()
        print_section(console, result)


def print_list(console: Console, result: DemoResult) -> None:
    """One user's list, as read from Redis."""
    user, recommendations = find_newest_list(result)
    products = result.shop.products_by_id()
    favourites = sorted(user.preferences.items(), key=lambda preference: -preference[1])[:2]
    likes = ", ".join(f"{category} {affinity:.1f}" for category, affinity in favourites)
    key = f"{result.environment.settings.redis.prefix}rec:{user.user_id}"
    table = Table(title=f"GET {key} (this simulated user likes {likes})")
    for column in ("item", "title", "category", "P(click)", "P(purchase)", "why"):
        table.add_column(column, justify="right" if column.startswith("P(") else "left")
    for item in recommendations.items[:ITEMS_SHOWN]:
        product = products[item.item_id]
        probabilities = [f"{item.probability.get(task, float('nan')):.3f}" for task in ("click", "purchase")]
        table.add_row(item.item_id, product.title, product.category or "-", *probabilities, item.why)
    console.print(table)
    console.print(
        f"{len(recommendations.items)} items, list {recommendations.recommendation_id}, "
        f"model {recommendations.model_version}"
    )


def find_newest_list(result: DemoResult) -> tuple[User, Recommendations]:
    """The user with the newest list in Redis."""
    lists = [
        (user, recommendations)
        for user in result.shop.users
        if (recommendations := result.environment.read_list(user.user_id))
    ]
    return max(lists, key=lambda user_and_list: (user_and_list[1].source_ms, user_and_list[0].user_id))


def print_decisions(console: Console, result: DemoResult) -> None:
    """Some decisions of each action, the most severe first."""
    table = Table(title="Decisions, as on the topic and in Redis")
    for column in ("order", "user", "action", "P(fraud)", "reasons"):
        table.add_column(column, justify="right" if column == "P(fraud)" else "left")
    for decision in select_decisions(result.environment.outputs.decisions):
        fraud = f"{decision.probability.get('fraud', float('nan')):.3f}"
        table.add_row(decision.event_id, decision.user_id, decision.action, fraud, "; ".join(decision.reasons) or "-")
    console.print(table)


def select_decisions(decisions: Mapping[str, Decision]) -> Iterator[Decision]:
    for action in reversed(ACTIONS):
        candidates = [decision for decision in decisions.values() if decision.action == action]
        candidates.sort(key=lambda decision: (-len(decision.reasons), -decision.ts_ms))
        yield from candidates[:DECISIONS_SHOWN]


def print_dead_letters(console: Console, result: DemoResult) -> None:
    """Dead letters found, compared with the malformed records sent on purpose."""
    consumed, sent = result.environment.outputs.dead_letters, result.live_phase.sent.malformed
    table = Table(title="Dead letters by reason")
    for column in ("reason", "sent malformed", "found"):
        table.add_column(column, justify="left" if column == "reason" else "right")
    for reason in sorted(consumed | sent):
        table.add_row(reason, str(sent[reason]), str(consumed[reason]))
    console.print(table)


def print_models(console: Console, result: DemoResult) -> None:
    """Both model versions, their training data, and the number of decisions made by each."""
    model_versions = [decision.model_version for decision in result.environment.outputs.decisions.values()]
    table = Table(title="The model before and after feedback")
    for column in ("version", "trained on", "decisions"):
        table.add_column(column, justify="right" if column == "decisions" else "left", no_wrap=True)
    for version, origin in zip(result.versions, ("history", "history and feedback"), strict=True):
        table.add_row(version, origin, str(model_versions.count(version)))
    console.print(table)


def print_figures(console: Console, result: DemoResult) -> None:
    """Throughput, CPU time, examples, and click rates on our lists and on the shop's own."""
    live_phase, outputs = result.live_phase, result.environment.outputs
    cpu_s_by_process = {
        name: probe.read_total("process_cpu_seconds_total") for name, probe in live_phase.probes.items()
    }
    cpu_seconds = ", ".join(f"{name} {cpu_s:.1f}" for name, cpu_s in cpu_s_by_process.items())
    console.print(
        f"Throughput: {live_phase.sent.records / live_phase.elapsed_s:,.0f} events/s "
        f"over {live_phase.elapsed_s:.1f} s, limited by the simulated shop; CPU seconds by process: {cpu_seconds}"
    )
    labels = ", ".join(f"{count:,} {task}" for task, count in sorted(outputs.count_labels().items()))
    console.print(f"Examples: {len(outputs.examples):,} (labels: {labels})")
    our_lists, shop_lists = live_phase.sent.our_lists, live_phase.sent.shop_lists
    console.print(
        f"Click rate on the home page: {our_lists.click_rate:.1%} of {our_lists.impressions:,} items on our lists, "
        f"{shop_lists.click_rate:.1%} of {shop_lists.impressions:,} on the shop's own lists (users without a list yet)"
    )
    console.print(f"Total time: {result.elapsed_s:.1f} s")


def print_addresses(console: Console, result: DemoResult) -> None:
    for name, probe in result.live_phase.probes.items():
        console.print(f"Metrics of {name}: {probe.url}/metrics", soft_wrap=True)
    settings = result.environment.settings
    console.print(f"Kafka: {settings.kafka.bootstrap_servers}   Redis: {settings.redis.url}", soft_wrap=True)
