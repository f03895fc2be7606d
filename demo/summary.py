"""The summary that the demo prints at its end: a list, decisions, dead letters, models, throughput, addresses."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.table import Table

from contract.messages import ACTIONS, Decision, Recommendations
from demo.environment import DemoEnvironment
from demo.live.home_pages import KNOWLEDGE, ORIGINS, SHOWN, Origin
from demo.live.live_phase import LivePhase
from demo.live.newcomer import NewcomerLists
from demo.simulator.shop import ShopSimulator
from demo.simulator.users import User

ITEMS_SHOWN: Final = 8
DECISIONS_SHOWN: Final = 3  # of each action
TITLES: Final[dict[Origin, str]] = {
    "lists": "The model's lists",
    "popular": "Popular items",
    "shop": "The shop's own pages",
}
WHY: Final = {
    "neighbour": "clicked by those who clicked the same items",
    "vector": "close to this user's taste by the network",
    "recent": "an item of this user",
    "category": "popular in a category of this user",
    "popular": "popular with everybody",
    "fresh": "new, shown to learn about it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """The outcome of the demo. `versions`: of the model before and after the update from feedback."""

    environment: DemoEnvironment
    shop: ShopSimulator
    live_phase: LivePhase
    versions: tuple[str, str]
    newcomer: NewcomerLists
    elapsed_s: float


def print_summary(console: Console, result: DemoResult) -> None:
    """Print every section."""
    for print_section in (
        print_list,
        print_newcomer,
        print_home_pages,
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


def print_newcomer(console: Console, result: DemoResult) -> None:
    """A newcomer's page before and after three clicks, place by place."""
    newcomer, products = result.newcomer, result.shop.products_by_id()
    clicked = ", ".join(products[item_id].title for item_id in newcomer.clicked)
    table = Table(title=f"A newcomer clicks {len(newcomer.clicked)} items of {newcomer.category}: {clicked}")
    for column in ("before: popular", "category", "after", "category", "why"):
        table.add_column(column)
    for before_id, item in list(zip(newcomer.before, newcomer.after.items, strict=False))[:ITEMS_SHOWN]:
        before, after = products[before_id], products[item.item_id]
        table.add_row(before.title, before.category or "-", after.title, after.category or "-", item.why)
    console.print(table)
    before_count, after_count = (
        newcomer.count_in_category(page, products) for page in (newcomer.before, newcomer.after_ids)
    )
    console.print(
        f"{before_count} of the first {ITEMS_SHOWN} items were of {newcomer.category} before, {after_count} are after. "
        + "; ".join(
            f"{why}: {WHY[why]}"
            for why in dict.fromkeys(item.why for item in newcomer.after.items[:ITEMS_SHOWN])
            if why in WHY
        )
    )


def print_home_pages(console: Console, result: DemoResult) -> None:
    """The click rates of the origins of home pages, how far the lists are ahead, and what each origin knows."""
    home_pages = result.live_phase.sent.home_pages
    table = Table(title="Clicks on home pages; each user sees pages of one origin")
    for column in ("pages", "users", "items shown", "clicked", "95 % interval"):
        table.add_column(column, justify="left" if column == "pages" else "right")
    for origin in ORIGINS:
        if rate := home_pages.click_rate(origin):
            counts = home_pages.count_by_user(origin)
            shown = f"{counts[:, SHOWN].sum():,.0f}"
            interval = f"{rate.low:.1%} to {rate.high:.1%}"
            table.add_row(TITLES[origin], f"{len(counts):,}", shown, f"{rate.value:.1%}", interval)
    console.print(table)
    for origin in ("popular", "shop"):
        if gain := home_pages.difference("lists", origin):
            console.print(
                f"{TITLES['lists']} minus {TITLES[origin].lower()}: {100 * gain.value:+.1f} points "
                f"(95 %: {100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
            )
    console.print(f"Of the pages of users with lists {home_pages.personal_share('lists'):.0%} were their list.")
    for origin in ORIGINS:
        console.print(f"{TITLES[origin]} know {KNOWLEDGE[origin]}.")


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
    """Throughput, CPU time and examples."""
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
    console.print(f"Total time: {result.elapsed_s:.1f} s")


def print_addresses(console: Console, result: DemoResult) -> None:
    for name, probe in result.live_phase.probes.items():
        console.print(f"Metrics of {name}: {probe.url}/metrics", soft_wrap=True)
    settings = result.environment.settings
    console.print(f"Kafka: {settings.kafka.bootstrap_servers}   Redis: {settings.redis.url}", soft_wrap=True)
