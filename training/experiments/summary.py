"""The comparison of an experiment on the terminal."""

from collections.abc import Mapping

from rich.table import Table

from training.experiments.comparison import CoverageComparison, ExperimentComparison, OutcomeComparison
from training.report.console import CONSOLE, print_lines


def print_experiment(comparison: ExperimentComparison, currencies: Mapping[str, int]) -> None:
    """A row for each outcome, and whether the experiment may be stopped."""
    control, variant = comparison.users
    title = f"{comparison.experiment}: {variant:,} users of the variant against {control:,}, {comparison.days:g} days"
    table = Table(
        "a user", "control", "variant", "difference", "at this look", "at every look", title=title, title_justify="left"
    )
    for name, outcome in comparison.outcomes.items():
        table.add_row(name, *format_means(outcome), format_always(outcome))
    table.add_row(f"coverage by {comparison.coverage.users:,} users", *format_means(comparison.coverage), "\u2013")
    CONSOLE.print(table)
    print_lines(*list_sentences(comparison, currencies))


def list_sentences(comparison: ExperimentComparison, currencies: Mapping[str, int]) -> list[str]:
    """What to do, and what is wrong with the comparison."""
    if comparison.stop:
        sentences = [f"The experiment may stop: the {comparison.better} has more {comparison.decides}."]
    else:
        sentences = [f"The experiment should go on: {comparison.decides} do not differ beyond chance."]
    if comparison.is_uneven:
        sentences.append(
            f"The numbers of users should fit the share. Found {comparison.users[1]:,} of {sum(comparison.users):,} in "
            f"the variant, p = {comparison.share_p:.2g}: assignment or logging is broken, trust no difference."
        )
    if comparison.mixed:
        sentences.append(f"{comparison.mixed:,} users had lists of both arms and are left out.")
    if len(currencies) > 1:
        sentences.append(f"Orders should have one currency for revenue. Found {', '.join(sorted(currencies))}.")
    return sentences


def format_means(outcome: OutcomeComparison | CoverageComparison) -> tuple[str, ...]:
    interval = f"[{outcome.low:+.4f}, {outcome.high:+.4f}]"
    return f"{outcome.control:.4f}", f"{outcome.variant:.4f}", f"{outcome.difference:+.4f}", interval


def format_always(outcome: OutcomeComparison) -> str:
    if outcome.always_low is None or outcome.always_high is None:
        return "\u2013"
    return f"[{outcome.always_low:+.4f}, {outcome.always_high:+.4f}]"
