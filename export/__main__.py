"""`python -m export`: publish a checkpoint as a bundle, inspect or verify a bundle, and choose the one that serves.

python -m export CHECKPOINT | --latest     export, compare with torch, publish
python -m export inspect [BUNDLE]          print the contents of a bundle
python -m export verify [BUNDLE]           check whether a bundle may serve, without torch
python -m export rollback                  make the parent of the current bundle current
python -m export serve VERSION             make a published bundle current, for example after its trial
python -m export trial VERSION [--share S] run a bundle as a shadow, or as a canary for a share of users
python -m export trial --end               end the trial
"""

import argparse
import faulthandler
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from contract.bundle import Manifest
from contract.errors import BadBundle, BadConfig, BadData
from contract.experiment import Trial
from contract.features.declaration import FeatureSet
from contract.features.sources import describe_nearest
from contract.folders import check_writable
from contract.logs import configure_logging
from contract.object_folder import open_folder
from contract.programs import name_program
from contract.settings.reading import Settings, read_settings

COMMANDS: Final = ("inspect", "verify", "rollback", "serve", "trial")
EXPORT: Final = "export"  # the command of arguments that name none


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 a checkpoint or bundle that must not serve, 2 wrong settings or arguments."""
    args = parse_arguments(arguments)
    try:
        settings, features = read_settings()
        configure_logging(settings.log, process="export")
        args.checkpoints = settings.bundles if args.bundles is None or "://" in args.bundles else Path(args.bundles)
        args.bundles = open_folder(args.bundles or settings.bundle_store or settings.bundles)
        status: int = args.run(args, settings, features)
    except BadConfig as error:
        print(*error.errors, sep="\n", file=sys.stderr)
        return 2
    except (BadBundle, BadData) as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"Files should be readable, and folders that are written to writable. Found: {error}.", file=sys.stderr)
        return 2
    return status


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = next((word for word in words if word in COMMANDS), None)
    if command is not None:
        words.remove(command)  # it may follow options
        words.insert(0, command)
    elif words not in (["-h"], ["--help"]):
        words.insert(0, EXPORT)
    return build_parser().parse_args(words)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=name_program("export"),
        usage="%(prog)s [-h] [COMMAND] ...",
        description="A trained model becomes a bundle. Without a COMMAND, a checkpoint is exported and published.",
    )
    folder = argparse.ArgumentParser(add_help=False)
    folder.add_argument("--bundles", help="the folder of bundles or its URL, instead of the settings' own")
    commands = parser.add_subparsers(metavar="COMMAND", prog=name_program("export"))

    export = commands.add_parser(EXPORT, parents=[folder], prog=name_program("export"), help="CHECKPOINT | --latest")
    source = export.add_mutually_exclusive_group(required=True)
    source.add_argument("checkpoint", nargs="?", type=Path, metavar="CHECKPOINT", help="a checkpoint file")
    source.add_argument("--latest", action="store_true", help="the newest checkpoint of the folder of bundles")
    export.add_argument("--interactions", type=Path, action="append", default=[], help="more (user_id, item_id, ts_ms)")
    export.add_argument("--older", action="store_true", help="publish even if the current bundle is newer")
    export.add_argument("--anyway", action="store_true", help="publish even if a task is worse than its base rate")
    export.add_argument(
        "--beside", dest="as_candidate", action="store_true", help="publish without making it current, for a trial"
    )
    export.set_defaults(run=run_export)

    inspect = commands.add_parser("inspect", parents=[folder], help="print the contents of a bundle")
    inspect.add_argument("bundle", nargs="?", metavar="BUNDLE", help="a version or a folder; else the current bundle")
    inspect.set_defaults(run=run_inspect)

    verify = commands.add_parser("verify", parents=[folder], help="check whether a bundle may serve")
    verify.add_argument("bundle", nargs="?", metavar="BUNDLE", help="a version or a folder; else the current bundle")
    verify.set_defaults(run=run_verify)

    rollback = commands.add_parser("rollback", parents=[folder], help="make the parent of the current bundle current")
    rollback.set_defaults(run=run_rollback)

    serve = commands.add_parser("serve", parents=[folder], help="make a published bundle current")
    serve.add_argument("version", metavar="VERSION")
    serve.set_defaults(run=run_serve)

    trial = commands.add_parser("trial", parents=[folder], help="start, change or end the trial of a bundle")
    subject = trial.add_mutually_exclusive_group(required=True)
    subject.add_argument("version", nargs="?", metavar="VERSION")
    subject.add_argument("--end", action="store_true", help="end the trial")
    trial.add_argument("--share", type=parse_share, default=0.0, help="of users that it answers; 0 (default): a shadow")
    trial.set_defaults(run=run_trial)
    return parser


def parse_share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"A share should be from 0 to 1. Found {text}.")
    return value


# The commands import what they use: torch takes seconds to load, and only an export needs it.


def run_export(args: argparse.Namespace, settings: Settings, features: FeatureSet) -> int:
    from export.exporter import export
    from model.base_rate import check_base_rate, explain_if_worse, warn_without_gain
    from model.checkpoint import find_latest, read_checkpoint

    started_s = time.monotonic()
    check_source(args)
    check_writable(args.bundles, "bundles")
    checkpoint = read_checkpoint(find_latest(args.checkpoints) if args.latest else args.checkpoint)
    evaluation = checkpoint.metadata.evaluation
    if not args.anyway:
        check_base_rate(evaluation)
    for sentence in (*explain_if_worse(evaluation), *warn_without_gain(evaluation)):
        print(sentence, file=sys.stderr)
    result = export(
        checkpoint,
        args.bundles,
        settings.thresholds,
        args.interactions,
        allow_older=args.older,
        as_candidate=args.as_candidate,
    )
    warn_if_unserved(result.manifest, features)
    worst = max(result.parity.values())
    print(
        f"Published {result.manifest.version} with {len(result.parity)} graphs, at most {worst:.1e} from torch, "
        f"in {time.monotonic() - started_s:.1f} s; the previous bundle is {result.manifest.parent or 'none'}."
    )
    return 0


def warn_if_unserved(manifest: Manifest, features: FeatureSet) -> None:
    """Say why every worker refuses the bundle, which may be for `training score` alone."""
    from export.verification import check_served

    try:
        check_served(manifest, features)
    except BadBundle as error:
        print(f"{error} Workers refuse it; `training score` takes it.", file=sys.stderr)


def check_source(args: argparse.Namespace) -> None:
    """Raise `BadConfig` where a word is neither a command nor a file."""
    if args.checkpoint is not None and not args.checkpoint.is_file():
        word = str(args.checkpoint)
        nearest = describe_nearest(word, COMMANDS)
        raise BadConfig(
            [f"`export` should have a checkpoint file, or a command: {', '.join(COMMANDS)}. Found {word}{nearest}."]
        )


def run_inspect(args: argparse.Namespace, settings: Settings, features: FeatureSet) -> int:
    from export.bundle_report import print_bundle
    from export.releases import locate_bundle

    print_bundle(*locate_bundle(args.bundles, args.bundle))
    return 0


def run_verify(args: argparse.Namespace, settings: Settings, features: FeatureSet) -> int:
    from contract.bundle import read_bundle
    from export.releases import explain_if_older, locate_bundle
    from export.verification import check_served, verify

    folder, version = locate_bundle(args.bundles, args.bundle)
    bundle = read_bundle(folder, version)
    report = verify(bundle, features)
    check_served(bundle.manifest, features)
    worst = max(report.differences.values(), default=0.0)
    print(
        f"Bundle {version} is valid: {len(bundle.files)} files with the digests of the manifest, {report.features} "
        f"features as declared, {len(report.differences)} graphs at most {worst:.1e} from torch's outputs."
    )
    if reason := explain_if_older(folder, version, bundle.manifest.created_ms):
        print(reason, file=sys.stderr)
    return 0


def run_rollback(args: argparse.Namespace, settings: Settings, features: FeatureSet) -> int:
    from export.releases import rollback

    check_writable(args.bundles, "bundles")
    print(f"Rolled back to {rollback(args.bundles)}.")
    return 0


def run_serve(args: argparse.Namespace, settings: Settings, features: FeatureSet) -> int:
    from export.releases import serve

    check_writable(args.bundles, "bundles")
    previous = serve(args.bundles, args.version)
    print(f"{args.version} is the current bundle; the previous one was {previous or 'none'}.")
    return 0


def run_trial(args: argparse.Namespace, settings: Settings, features: FeatureSet) -> int:
    from contract.experiment import end_trial
    from export.releases import start_trial

    check_writable(args.bundles, "bundles")
    if args.end:
        ended = end_trial(args.bundles)
        print(f"The trial of {ended.version} has ended." if ended else "There was no trial.")
        return 0
    current = start_trial(args.bundles, Trial(version=args.version, share=args.share))
    if args.share:
        print(f"{args.version} answers {args.share:.2%} of users, {current} the others.")
    else:
        print(f"{args.version} runs as a shadow of {current}.")
    return 0


if __name__ == "__main__":
    faulthandler.enable()  # a fault in a library ends the process; the stacks on stderr say where
    raise SystemExit(main())
