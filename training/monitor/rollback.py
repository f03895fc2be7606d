"""Taking a bundle back: workers are pointed to its parent again, and why is kept.

A bundle that was gone back to is never left for its own parent: that takes a new bundle in between. The decision is
written down before the pointer moves, so a watcher that dies in between carries it out when it is back.

    BUNDLES/withdrawn/VERSION.json    version, where workers were pointed to, reasons, when, and whether it is done
"""

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from contract.bundle import current_version, read_bundle, read_manifest, replace_durably
from contract.errors import BadBundle
from export.releases import rollback


class Withdrawal(Struct, frozen=True, kw_only=True):
    """What is kept of a bundle that was taken back; `is_done`: workers have been pointed to `to`."""

    version: str
    to: str
    reasons: tuple[str, ...]
    decided_ms: int
    is_done: bool = False


def find_rollback_target(bundles: Path, version: str) -> str:
    """The bundle that may serve again in the place of this one; raises `BadBundle` with the reason where none may."""
    parent = read_manifest(bundles, version).parent
    if parent is None:
        raise BadBundle(f"Bundle {version} has no parent to be compared with.")
    withdrawals = {withdrawal.version: withdrawal for withdrawal in list_withdrawals(bundles)}
    if version in withdrawals and withdrawals[version].is_done:
        raise BadBundle(f"Bundle {version} was taken back before, and somebody has pointed to it again: it stays.")
    if version in {withdrawal.to for withdrawal in withdrawals.values()}:
        raise BadBundle(f"Bundle {version} is what was gone back to: it stays until a new one comes.")
    if parent in withdrawals:
        raise BadBundle(f"Bundle {version} has the parent {parent}, which was taken back: there is none to go back to.")
    return parent


def list_withdrawals(bundles: Path) -> list[Withdrawal]:
    """Every bundle that was taken back; a file that cannot be read is none."""
    withdrawals = list[Withdrawal]()
    for path in sorted((bundles / "withdrawn").glob("*.json")):
        try:
            withdrawals.append(msgspec.json.decode(path.read_bytes(), type=Withdrawal))
        except (OSError, msgspec.MsgspecError):
            continue
    return withdrawals


def find_unfinished(bundles: Path, version: str) -> Withdrawal | None:
    """The decision to take this version back, if a watcher died before it was carried out."""
    return next(
        (
            withdrawal
            for withdrawal in list_withdrawals(bundles)
            if withdrawal.version == version and not withdrawal.is_done
        ),
        None,
    )


def withdraw(bundles: Path, version: str, parent: str, reasons: Sequence[str]) -> Withdrawal | None:
    """Write down why, point to the parent, write down that it is done; None where another bundle serves by now.

    Raises `BadBundle`, with nothing changed, for a parent that is not whole.
    """
    read_bundle(bundles, parent)
    now_ms = time.time_ns() // 1_000_000
    withdrawal = Withdrawal(version=version, to=parent, reasons=tuple(reasons), decided_ms=now_ms)
    write_withdrawal(bundles, withdrawal)
    return finish_withdrawal(bundles, withdrawal)


def finish_withdrawal(bundles: Path, withdrawal: Withdrawal) -> Withdrawal | None:
    """Carry a decision out; None, and it is forgotten, where another bundle serves by now."""
    if current_version(bundles) != withdrawal.version:
        withdrawal_path(bundles, withdrawal.version).unlink(missing_ok=True)
        return None
    rollback(bundles)
    done = msgspec.structs.replace(withdrawal, is_done=True)
    write_withdrawal(bundles, done)
    return done


def write_withdrawal(bundles: Path, withdrawal: Withdrawal) -> None:
    path = withdrawal_path(bundles, withdrawal.version)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_durably(path, msgspec.json.encode(withdrawal))


def withdrawal_path(bundles: Path, version: str) -> Path:
    return bundles / "withdrawn" / f"{version}.json"
