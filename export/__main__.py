"""`python -m export`: publish a checkpoint as a bundle, look into one, or go back to the one before.

python -m export CHECKPOINT | --latest     export, check against torch, publish
python -m export inspect [BUNDLE]          what is in a bundle
python -m export verify [BUNDLE]           whether a bundle may serve, checked without torch
python -m export rollback                  point to the parent of the present bundle
python -m export serve VERSION             point to a bundle that is there, one that was tried for example
python -m export trial VERSION [--share S] ask a bundle beside the present one, or let it answer a share of users
python -m export trial --end               end the trial
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Final

from contract.errors import BadBundle, BadConfig, BadData
from contract.experiment import Trial
from contract.features.declaration import FeatureSet
from contract.logs import configure_logging
from contract.settings import Settings, read_settings

BUNDLE_COMMANDS: Final = ("inspect", "verify", "serve", "trial")  # these take a bundle


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 done, 1 a checkpoint or bundle that must not serve, 2 wrong settings or arguments."""
    args = parse_arguments(arguments)
    try:
        settings, features = read_settings()
        configure_logging(settings.log, process="export")
        bundles: Path = args.bundles or settings.bundles
        match args.what:
            case "rollback":
                return rollback_command(bundles)
            case "serve":
                return serve_command(bundles, args.bundle)
            case "trial":
                return trial_command(bundles, None if args.end else Trial(version=args.bundle, share=args.share or 0.0))
            case "inspect":
                return inspect_command(bundles, args.bundle)
            case "verify":
                return verify_command(bundles, args.bundle, features)
            case _:
                return export_command(bundles, settings, args)
    except BadConfig as error:
        print(*error.errors, sep="\n", file=sys.stderr)
        return 2
    except (BadBundle, BadData) as error:
        print(error, file=sys.stderr)
        return 1


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m export", description="A trained model becomes a bundle.")
    parser.add_argument("what", nargs="?", help=f"a checkpoint file; or {', '.join(BUNDLE_COMMANDS)}, rollback")
    parser.add_argument("bundle", nargs="?", help="a version to serve or try; to inspect or verify, also a folder")
    parser.add_argument("--latest", action="store_true", help="the newest checkpoint of the bundles' folder")
    parser.add_argument("--bundles", type=Path, help="the folder of bundles, in place of the settings' own")
    parser.add_argument("--interactions", type=Path, action="append", default=[], help="more (user_id, item_id, ts_ms)")
    parser.add_argument("--older", action="store_true", help="publish although the present bundle is newer")
    parser.add_argument("--beside", action="store_true", help="publish without pointing to it, for a trial")
    parser.add_argument("--share", type=parse_share, help="of users that a trial answers; 0 (without it): a shadow")
    parser.add_argument("--end", action="store_true", help="end the trial")
    args = parser.parse_args(arguments)
    if args.latest == (args.what is not None) or (args.bundle is not None and args.what not in BUNDLE_COMMANDS):
        parser.error("name one checkpoint, or --latest, or `inspect`, `verify` with or without a BUNDLE, or `rollback`")
    if args.what in ("serve", "trial") and (args.bundle is None) != args.end:
        parser.error(f"`{args.what}` takes a VERSION" + (", or --end" if args.what == "trial" else ""))
    if args.what != "trial" and (args.end or args.share is not None):
        parser.error("--share and --end are of `trial`")
    return args


def parse_share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"A share should be from 0 to 1. Found {text}.")
    return value


def export_command(bundles: Path, settings: Settings, args: argparse.Namespace) -> int:
    # torch takes seconds to load, and looking into a bundle or going back needs none of it.
    from export.exporter import export
    from model.checkpoint import find_latest, read_checkpoint

    begun = time.monotonic()
    checkpoint = read_checkpoint(find_latest(bundles) if args.latest else Path(args.what))
    result = export(
        checkpoint, bundles, settings.thresholds, args.interactions, allow_older=args.older, as_candidate=args.beside
    )
    worst = max(result.parity.values())
    print(
        f"Published {result.manifest.version} with {len(result.parity)} graphs, at most {worst:.1e} from torch, "
        f"in {time.monotonic() - begun:.1f} s; the one before is {result.manifest.parent or 'none'}."
    )
    return 0


def inspect_command(bundles: Path, name: str | None) -> int:
    from export.bundle_report import print_bundle
    from export.releases import locate_bundle

    print_bundle(*locate_bundle(bundles, name))
    return 0


def verify_command(bundles: Path, name: str | None, features: FeatureSet) -> int:
    from contract.bundle import read_bundle
    from export.releases import explain_if_older, locate_bundle
    from export.verification import verify

    folder, version = locate_bundle(bundles, name)
    bundle = read_bundle(folder, version)
    report = verify(bundle, features)
    worst = max(report.differences.values(), default=0.0)
    print(
        f"Bundle {version} holds: {len(bundle.files)} files as the manifest vouches for them, {report.features} "
        f"features as declared, {len(report.differences)} graphs at most {worst:.1e} from what torch answered."
    )
    if reason := explain_if_older(folder, version, bundle.manifest.created_ms):
        print(reason, file=sys.stderr)
    return 0


def rollback_command(bundles: Path) -> int:
    from export.releases import rollback

    print(f"Workers are pointed to {rollback(bundles)} again.")
    return 0


def serve_command(bundles: Path, version: str) -> int:
    from export.releases import serve

    former = serve(bundles, version)
    print(f"Workers are pointed to {version}; the one before was {former or 'none'}.")
    return 0


def trial_command(bundles: Path, trial: Trial | None) -> int:
    from contract.experiment import end_trial
    from export.releases import start_trial

    if trial is None:
        ended = end_trial(bundles)
        print(f"The trial of {ended.version} has ended." if ended else "Nothing was on trial.")
        return 0
    current = start_trial(bundles, trial)
    effect = f"answers {trial.share:.2%} of users" if trial.share else "is asked and not heeded"
    print(f"{trial.version} {effect}, beside {current}.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
