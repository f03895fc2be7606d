"""`python -m training`: examples in, model out.

python -m training fit DATA.parquet...                         learn from examples, keep a checkpoint
python -m training describe DATA.parquet                       what examples are like: missing, outliers, constants
python -m training evaluate DATA.parquet                       the network beside single-task nets and LightGBM
python -m training affinity DATA.parquet                       which tasks agree while they learn, which conflict
python -m training search DATA.parquet...                      which network and plan learn best
python -m training follow [--once]                             go on learning from the feedback topic, publish
python -m training compare [--since HOURS]                     a model on trial beside the one that serves
python -m training watch [--once]                              how good the serving model is; takes a worse one back
python -m training skew [--share SHARE]                        features as served beside those of the log
python -m training replay EVENTS.jsonl... --out DATA.parquet   examples from events of before the first log
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from contract.errors import BadBundle, BadConfig, BadData, Unavailable
from contract.features.declaration import FeatureSet
from contract.logs import configure_logging
from contract.settings import Settings, read_settings

PROCESSES: Final = {"follow": "learner", "watch": "monitor"}  # the commands that run for good
CARRIED_MODES: Final = ("frozen", "slow", "free")
METHODS: Final = ("ours", "single-task", "LightGBM")


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 done, 1 data or a model at fault, 2 wrong settings or arguments, 3 an update refused, 4 frozen."""
    args = parse_arguments(arguments)
    try:
        settings, features = read_settings()
        configure_logging(settings.log, process=PROCESSES.get(args.command, "training"))
        return load_command(args.command)(args, settings, features)
    except BadConfig as error:
        print(*error.errors, sep="\n", file=sys.stderr)
        return 2
    except (BadBundle, BadData, Unavailable) as error:
        print(error, file=sys.stderr)
        return 1


def load_command(name: str) -> Callable[[argparse.Namespace, Settings, FeatureSet], int]:
    """The command of that name; torch takes seconds to load, so each brings what it needs itself."""
    match name:
        case "fit":
            from training.commands.fit import run
        case "describe":
            from training.commands.describe import run
        case "evaluate":
            from training.commands.evaluate import run
        case "affinity":
            from training.commands.affinity import run
        case "search":
            from training.commands.search import run
        case "compare":
            from training.commands.compare import run
        case "follow":
            from training.commands.follow import run
        case "watch":
            from training.commands.watch import run
        case "skew":
            from training.commands.skew import run
        case _:
            from training.commands.replay import run
    return run


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training", description="Examples in, model out.")
    commands = parser.add_subparsers(dest="command", required=True)
    fit = commands.add_parser("fit", help="learn from examples and keep a checkpoint")
    fit.add_argument("data", type=Path, nargs="+", help="examples as Parquet; several files are learned from together")
    fit.add_argument("--interactions", type=Path, action="append", default=[], help="more (user_id, item_id, ts_ms)")
    fit.add_argument("--epochs", type=int, help="passes over the data, in place of the settings' own")
    fit.add_argument("--seed", type=int, help="the seed, in place of the settings' own")
    fit.add_argument("--bundles", type=Path, help="the folder of bundles, in place of the settings' own")
    fit.add_argument("--resume", type=Path, help="a file that keeps each epoch, to go on from if fit was ended")
    fit.add_argument("--log", type=Path, help="a file that gets a JSON object for each epoch")
    fit.add_argument("--from", dest="former", metavar="VERSION", help="begin as this trained network; tasks may be new")
    carried = "what becomes of the layers that come from there (slow: a tenth of the learning rate)"
    fit.add_argument("--carried", choices=CARRIED_MODES, default="slow", help=carried)
    describe = commands.add_parser("describe", help="what examples are like: missing, outliers, constant columns")
    describe.add_argument("data", type=Path, help="examples as Parquet")
    describe.add_argument("--out", type=Path, default=Path("reports"), help="the folder of its page")
    add_evaluate_arguments(
        commands.add_parser("evaluate", help="compare the network with single-task nets and LightGBM")
    )
    affinity = commands.add_parser("affinity", help="which tasks agree while they learn, and which are in conflict")
    affinity.add_argument("data", type=Path, help="examples as Parquet")
    affinity.add_argument("--out", type=Path, default=Path("reports"), help="the folder of its page")
    affinity.add_argument("--epochs", type=int, help="passes over the data, in place of the settings' own")
    affinity.add_argument("--seed", type=int, help="the seed, in place of the settings' own")
    search = commands.add_parser("search", help="which shape of network and which plan learn best")
    search.add_argument("data", type=Path, nargs="+", help="examples as Parquet")
    search.add_argument("--trials", type=int, default=30, help="how many, counting those that are kept")
    search.add_argument("--over", nargs="+", metavar="NAME", help="what may differ: names of [model] and [training]")
    search.add_argument("--epochs", type=int, help="passes over the data, in place of the settings' own")
    search.add_argument("--kept", type=Path, help="a file that keeps trials, to go on from")
    search.add_argument("--out", type=Path, help="where to write the best [model] and [training], as TOML")
    follow = commands.add_parser("follow", help="go on learning from the feedback topic, and publish")
    follow.add_argument("--once", action="store_true", help="learn from what is there now, then end")
    follow.add_argument("--thaw", action="store_true", help="go on after refused updates have frozen the model")
    follow.add_argument("--bundles", type=Path, help="the folder of bundles, in place of the settings' own")
    add_compare_arguments(commands.add_parser("compare", help="judge a model on trial beside the one that serves"))
    add_watch_arguments(commands)
    replay = commands.add_parser("replay", help="make examples from events of before the first log")
    replay.add_argument("events", type=Path, nargs="+", help='lines of {"kind": ..., "event": ...} in time order')
    replay.add_argument("--out", type=Path, required=True, help="where to write the examples, as Parquet")
    replay.add_argument("--interactions", type=Path, help="where to write who took what, as Parquet")
    return parser.parse_args(arguments)


def add_watch_arguments(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    watch = commands.add_parser("watch", help="tell how good the serving model is, and take a worse one back")
    watch.add_argument("--once", action="store_true", help="look once, then end with a line of JSON")
    watch.add_argument("--bundles", type=Path, help="the folder of bundles, in place of the settings' own")
    skew = commands.add_parser("skew", help="compare features as served with those of the log, value for value")
    skew.add_argument("--share", type=float, default=0.01, help="of users, drawn by a hash; 1 compares all features")
    skew.add_argument("--rows", type=int, default=20_000, help="the latest rows of these users, at most")


def add_evaluate_arguments(evaluate: argparse.ArgumentParser) -> None:
    evaluate.add_argument("data", type=Path, help="examples as Parquet")
    evaluate.add_argument("--out", type=Path, default=Path("reports"), help="the folder of its pages")
    evaluate.add_argument("--folds", type=int, default=3, help="origins in time, or parts cut by chance")
    evaluate.add_argument("--seeds", type=int, default=3, help="how often each method learns in each fold")
    evaluate.add_argument(
        "--settle-days", type=float, default=0.0, help="leave out the latest days, whose labels may still change"
    )
    evaluate.add_argument("--epochs", type=int, help="passes over the data, in place of the settings' own")
    evaluate.add_argument("--methods", nargs="+", choices=METHODS, help="these alone")


def add_compare_arguments(compare: argparse.ArgumentParser) -> None:
    compare.add_argument("--since", type=float, metavar="HOURS", help="examples that came in the last so many hours")
    compare.add_argument("--versions", nargs=2, metavar=("SERVING", "CHALLENGER"), help="in place of those on trial")
    compare.add_argument("--settle-days", type=float, default=0.0, help="leave out the latest days' events")
    compare.add_argument("--out", type=Path, default=Path("reports"), help="the folder of its page")
    compare.add_argument("--bundles", type=Path, help="the folder of bundles, in place of the settings' own")


if __name__ == "__main__":
    raise SystemExit(main())
