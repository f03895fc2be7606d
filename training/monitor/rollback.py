"""Rollback of a bundle: the pointer moves back to its parent, and the withdrawal is recorded with its reasons.

A bundle that was the target of a rollback is not rolled back itself, until a new bundle was published in between. The
record is written before the pointer moves, so that a monitor that crashed in between completes it after its restart.

    BUNDLES/withdrawn/VERSION.json    version, the bundle that serves instead, reasons, time, and whether it is done
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
    """The record of a bundle that was rolled back; `is_done`: the pointer names `to`."""

    version: str
    to: str
    reasons: tuple[str, ...]
    decided_ms: int
    is_done: bool = False


def find_rollback_target(bundles: Path, version: str) -> str:
    """The bundle that this one may be rolled back to; raises `BadBundle` with the reason if there is none."""
    parent = read_manifest(bundles, version).parent
    if parent is None:
        raise BadBundle(f"Bundle {version} has no parent to compare it with.")
    withdrawals = {withdrawal.version: withdrawal for withdrawal in list_withdrawals(bundles)}
    if version in withdrawals and withdrawals[version].is_done:
        raise BadBundle(f"Bundle {version} was withdrawn before and selected again by an operator: it stays.")
    if version in {withdrawal.to for withdrawal in withdrawals.values()}:
        raise BadBundle(f"Bundle {version} was the target of a rollback: it stays until a new one is published.")
    if parent in withdrawals:
        raise BadBundle(
            f"Bundle {version} has the parent {parent}, which was withdrawn: there is none to roll back to."
        )
    return parent


def list_withdrawals(bundles: Path) -> list[Withdrawal]:
    """All withdrawals; files that cannot be read are skipped."""
    withdrawals = list[Withdrawal]()
    for path in sorted((bundles / "withdrawn").glob("*.json")):
        try:
            withdrawals.append(msgspec.json.decode(path.read_bytes(), type=Withdrawal))
        except (OSError, msgspec.MsgspecError):
            continue
    return withdrawals


def find_unfinished(bundles: Path, version: str) -> Withdrawal | None:
    """The withdrawal of this version that was recorded and not completed, if any."""
    unfinished = [withdrawal for withdrawal in list_withdrawals(bundles) if not withdrawal.is_done]
    return next((withdrawal for withdrawal in unfinished if withdrawal.version == version), None)


def withdraw(bundles: Path, version: str, parent: str, reasons: Sequence[str]) -> Withdrawal | None:
    """Record the withdrawal, move the pointer to the parent, mark it as done; None if another bundle serves by now.

    Raises `BadBundle`, with nothing changed, if the parent is damaged.
    """
    read_bundle(bundles, parent)
    now_ms = time.time_ns() // 1_000_000
    withdrawal = Withdrawal(version=version, to=parent, reasons=tuple(reasons), decided_ms=now_ms)
    write_withdrawal(bundles, withdrawal)
    return finish_withdrawal(bundles, withdrawal)


def finish_withdrawal(bundles: Path, withdrawal: Withdrawal) -> Withdrawal | None:
    """Complete a withdrawal; None, and its record is deleted, if another bundle serves by now."""
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
