"""`python -m export`: publish a checkpoint as a bundle, look into one, or go back to the one before.

python -m export CHECKPOINT | --latest     export, check against torch, publish
python -m export inspect VERSION           what is in a bundle
python -m export rollback                  point to the parent of the present bundle
"""

import argparse
import sys
import time
from pathlib import Path

from contract.errors import BadBundle, BadConfig, BadData
from contract.settings import Settings, read_settings


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 done, 1 a checkpoint or bundle that must not serve, 2 wrong settings or arguments."""
    args = parse(arguments)
    try:
        settings, _ = read_settings()
        bundles: Path = args.bundles or settings.bundles
        if args.what == "rollback":
            return rollback_command(bundles)
        return inspect_command(bundles, args) if args.what == "inspect" else export_command(bundles, settings, args)
    except BadConfig as error:
        print(*error.errors, sep="\n", file=sys.stderr)
        return 2
    except (BadBundle, BadData) as error:
        print(error, file=sys.stderr)
        return 1


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m export", description="A trained model becomes a bundle.")
    parser.add_argument("what", nargs="?", help="a checkpoint file; or `inspect VERSION`; or `rollback`")
    parser.add_argument("version", nargs="?", help="the bundle to inspect; the present one if it is left out")
    parser.add_argument("--latest", action="store_true", help="the newest checkpoint of the bundles' folder")
    parser.add_argument("--bundles", type=Path, help="the folder of bundles, in place of the settings' own")
    parser.add_argument("--interactions", type=Path, action="append", default=[], help="more (user_id, item_id, ts_ms)")
    args = parser.parse_args(arguments)
    if args.latest == (args.what is not None) or (args.version is not None and args.what != "inspect"):
        parser.error("name one checkpoint, or --latest, or `inspect VERSION`, or `rollback`")
    return args


def export_command(bundles: Path, settings: Settings, args: argparse.Namespace) -> int:
    # torch takes seconds to load, and looking into a bundle or going back needs none of it.
    from export.bundling import export
    from model.checkpoint import latest, read_checkpoint

    begun = time.monotonic()
    checkpoint = read_checkpoint(latest(bundles) if args.latest else Path(args.what))
    exported = export(checkpoint, bundles, settings.thresholds, args.interactions)
    worst = max(exported.parity.values())
    print(
        f"Published {exported.manifest.version} with {len(exported.parity)} graphs, at most {worst:.1e} from torch, "
        f"in {time.monotonic() - begun:.1f} s; the one before is {exported.manifest.parent or 'none'}."
    )
    return 0


def inspect_command(bundles: Path, args: argparse.Namespace) -> int:
    from export.inspection import show

    show(bundles, args.version)
    return 0


def rollback_command(bundles: Path) -> int:
    from export.pointer import rollback

    print(f"Workers are pointed to {rollback(bundles)} again.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
