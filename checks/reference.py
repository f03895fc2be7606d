"""`python -m checks.reference` writes docs/reference from the code; with `--check` it reports pages that differ."""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from checks.reference_sections import format_section, read_docstring_meanings, read_documented_meanings
from contract.events.model import ATTRIBUTES_MAX
from contract.features.columns import WIDTHS
from contract.features.declaration import GROUPS, Feature
from contract.features.source_meanings import describe_aggregate, describe_source
from contract.features.sources import FOLDED_EVENTS, list_sources
from contract.graphs import GRAPHS
from contract.profiles.entity_kinds import BUILT_IN_KINDS, DECLARED_MAX, LINKED_KINDS
from contract.profiles.record import AGGREGATES, ENTITY_KINDS
from contract.settings.model import ModelConfig
from contract.settings.training import TrainingConfig
from contract.tasks import Task, TaskKind

ROOT: Final = Path(__file__).parent.parent
FOLDER: Final = ROOT / "docs" / "reference"
MADE: Final = "This page is made from the code: `python -m checks.reference` writes it, and a test holds it."
FEATURE_KIND_MEANINGS: Final = {
    "number": ("one number", "NaN"),
    "category": ("one of many names; the ids that training saw often enough get an embedding", "0"),
    "sequence": ("the last 8 linked ids of a profile, newest first", "0"),
    "text": ("words and their trigrams, 32 at most", "0"),
    "vector": ("`size` numbers, for embeddings that the shop computes", "NaN"),
}
GROUP_MEANINGS: Final = {
    "user": "the user and their history",
    "context": "when and where",
    "order": "the order, and the history of what it names",
    "item": "the product; its sources are `item.FIELD`",
    "query": "the words of a search",
    "review": "the review",
}
TASK_KIND_MEANINGS: Final = {
    "binary": "0 or 1",
    "graded": "a number from 0 to 1, such as a relevance",
    "multiclass": "the name of a class",
    "regression": "a number up to 1e18",
}
FEATURE_FIELD_MEANINGS: Final = {
    "name": "unique; rules, `hide` and reports use it",
    "group": f"one of {', '.join(f'`{group}`' for group in GROUPS)}, see [groups](#groups)",
    "kind": f"one of {', '.join(f'`{kind}`' for kind in FEATURE_KIND_MEANINGS)}, see [kinds](#kinds)",
    "source": "where the value comes from, see [sources](#sources)",
    "size": "the length of a `vector`, and only of that",
}


def format_table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(list(head))
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def name_all(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def format_features() -> Iterator[str]:
    """docs/reference/features.md."""
    yield from ("# Features", "", MADE, "")
    yield "`features.toml` declares each feature as a `[[features]]` table; their order is the order of columns."
    yield "`python -m worker features list` prints every source with the features that use it."
    yield ""
    yield from ("```toml", "[[features]]", 'name = "browser"', 'group = "order"', 'kind = "category"')
    yield from ('source = "event.attributes.browser"', "```", "")
    fields = [field for field in msgspec.structs.fields(Feature) if field.name in FEATURE_FIELD_MEANINGS]
    yield from format_table(
        ("key", "needed", "meaning"),
        ((f"`{field.name}`", "yes" if field.required else "", FEATURE_FIELD_MEANINGS[field.name]) for field in fields),
    )
    yield from ("## Kinds", "")
    yield from format_table(
        ("kind", "columns", "meaning", "absent"),
        (
            (f"`{kind}`", str(WIDTHS.get(kind, "`size`")), *FEATURE_KIND_MEANINGS[kind])
            for kind in FEATURE_KIND_MEANINGS
        ),
    )
    yield from (
        "## Groups",
        "",
        "A task reads whole groups, and its graph says which it may read: see [tasks](tasks.md#graphs).",
        "",
    )
    yield from format_table(
        ("group", "holds", "graphs"),
        (
            (
                f"`{group}`",
                GROUP_MEANINGS[group],
                name_all(graph.name for graph in GRAPHS.values() if group in graph.groups),
            )
            for group in GROUPS
        ),
    )
    yield from format_sources()
    yield from format_profiles()


def format_sources() -> Iterator[str]:
    """The sources that are not profiles."""
    yield from ("## Sources", "")
    yield "A source that an event does not have is absent."
    yield ""
    sources = [source for source in list_sources(()) if not source.name.startswith("profile.")]
    yield from format_table(
        ("source", "kinds", "events", "meaning"),
        (
            (f"`{source.name}`", name_all(source.kinds), ", ".join(source.events), describe_source(source.name))
            for source in sources
        ),
    )
    yield from ("Sources with a name that you give:", "")
    yield from format_table(
        ("source", "kinds", "events", "meaning"),
        (
            (
                "`event.attributes.NAME`",
                name_all(("number", "category", "text", "vector")),
                ", ".join(FOLDED_EVENTS),
                f"a field of your own, of at most {ATTRIBUTES_MAX}; see [attributes](../events.md#attributes)",
            ),
            (
                "`item.attributes.NAME`",
                name_all(("number", "category", "text", "vector")),
                "products",
                "the same of a product",
            ),
            (
                "`profile.KIND.AGGREGATE`",
                "`number`",
                "",
                "what the profile of an entity knew before the event, see [profiles](#profiles)",
            ),
            ("`profile.KIND.recent`", "`sequence`", "", describe_aggregate("recent")),
            (
                "`ratio A / B`",
                "`number`",
                "",
                "two number features that are declared before it in its group; absent where B is 0 or absent",
            ),
            (
                "`column.NAME`",
                name_all(("number", "category", "text")),
                "",
                "a column of a [plain table](../training.md); no event has it, so workers refuse a model that needs it",
            ),
        ),
    )


def format_profiles() -> Iterator[str]:
    """Entities and their aggregates."""
    yield from ("## Profiles", "")
    own = f"up to {DECLARED_MAX} [entities of your own](../operations.md#your-own-entities)"
    yield f"KIND is one of {name_all(ENTITY_KINDS)}, or one of {own}."
    yield "Where an event names several items or sellers, the first counts."
    yield ""
    yield from format_table(
        ("events", "profiles that they change"),
        (
            (family, name_all(kinds) + ", your own")
            for family, kinds in (
                *LINKED_KINDS.items(),
                ("impressions, searches", ("user",)),
                ("judgements", BUILT_IN_KINDS.names),
            )
        ),
    )
    yield from ("Every kind of entity has the same aggregates.", "")
    yield from format_table(
        ("AGGREGATE", "meaning"), ((f"`{aggregate}`", describe_aggregate(aggregate)) for aggregate in AGGREGATES)
    )


def format_tasks() -> Iterator[str]:
    """docs/reference/tasks.md."""
    yield from ("# Tasks", "", MADE, "")
    yield "`shop.toml` declares what the model predicts: each task is a `[[tasks]]` table."
    yield "Rules act on number features of orders, thresholds on probabilities ([settings](../operations.md#settings))."
    yield ""
    yield from (
        "```toml",
        "[[tasks]]",
        'name = "chargeback"',
        'kind = "binary"',
        'groups = ["user", "order", "context"]',
    )
    yield from ('graph = "decide"', "", "[thresholds.chargeback]", "review = 0.2", "```", "")
    meanings = read_docstring_meanings(Task)
    yield from format_table(
        ("key", "type", "default", "meaning"),
        (
            (
                f"`{field.name}`",
                describe_type(field.type),
                "needed" if field.required else f"`{format_default(field.default)}`",
                meanings[field.name],
            )
            for field in msgspec.structs.fields(Task)
        ),
    )
    yield from ("## Kinds and labels", "")
    yield from format_table(
        ("kind", "labels"), ((f"`{kind}`", TASK_KIND_MEANINGS[kind]) for kind in get_args(TaskKind))
    )
    yield from ("## Graphs", "")
    yield from format_table(
        ("graph", "groups that its tasks may read", "rows that log it", "tasks that workers need"),
        (
            (f"`{graph.name}`", name_all(graph.groups), ", ".join(graph.scored_kinds), name_all(graph.outputs))
            for graph in GRAPHS.values()
            if graph.name != "items"
        ),
    )


def describe_type(annotation: Any) -> str:
    """A field's type as a settings file writes it."""
    name = str(annotation)
    if "Literal" in name:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if "tuple" in name:
        return "list of names" if "str" in name else "list of whole numbers"
    return "number" if "float" in name else "text"


def format_default(value: object) -> str:
    return "[]" if value == () else "none" if value is None else str(value)


def format_settings(title: str, name: str, section: type, more: str) -> Callable[[], Iterator[str]]:
    """A page of one section of `shop.toml`."""

    def format_page() -> Iterator[str]:
        yield from (f"# {title}", "", MADE, "", more, "")
        head, rows = format_section(name, section, read_documented_meanings(ROOT / "docs" / "operations.md"))
        yield from format_table(head, rows)

    return format_page


PAGES: Final[dict[str, Callable[[], Iterator[str]]]] = {
    "features.md": format_features,
    "tasks.md": format_tasks,
    "model.md": format_settings(
        "Model settings",
        "model",
        ModelConfig,
        "`[model]` in `shop.toml`: the shape of the network; [training](../training.md) explains it.",
    ),
    "training.md": format_settings(
        "Training settings",
        "training",
        TrainingConfig,
        "`[training]` in `shop.toml`: how a network is fitted and updated; [training](../training.md) explains it.",
    ),
}


def build_page(name: str) -> str:
    """The text of a page as the code has it now."""
    return "\n".join(PAGES[name]()).rstrip("\n") + "\n"


def main() -> int:
    """Write the pages, or report those that differ."""
    parser = argparse.ArgumentParser(prog="python -m checks.reference", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if a page differs")
    check = parser.parse_args().check
    FOLDER.mkdir(exist_ok=True)
    differing = [
        name for name in PAGES if not (FOLDER / name).is_file() or (FOLDER / name).read_text() != build_page(name)
    ]
    for name in differing:
        print(f"docs/reference/{name} {'should be written again' if check else 'is written'}.")
        if not check:
            (FOLDER / name).write_text(build_page(name))
    return 1 if check and differing else 0


if __name__ == "__main__":
    sys.exit(main())
