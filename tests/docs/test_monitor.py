"""docs/training.md describes the settings and options of the monitor, and the options of `training skew`."""

import msgspec
import pytest

from contract.settings.monitor import MonitorConfig
from tests.checkout import ROOT
from tests.docs.pages import MarkdownPage, strip_code_marks
from training.__main__ import parse_arguments

PAGE = MarkdownPage(ROOT / "docs" / "training.md")


def test_every_setting_of_the_monitor_is_documented_with_its_default() -> None:
    table = PAGE.tables("training watch")[1]
    config = MonitorConfig()
    defaults = {name: msgspec.json.encode(getattr(config, name)).decode() for name in MonitorConfig.__annotations__}

    assert {strip_code_marks(row["setting"]): strip_code_marks(row["default"]) for row in table} == defaults


@pytest.mark.parametrize("command", ["watch", "skew"])
def test_every_option_of_the_command_is_documented(command: str) -> None:
    args = vars(parse_arguments([command]))

    for name in args.keys() - {"command", "run"}:
        assert f"`--{name.replace('_', '-')}" in PAGE.section(f"training {command}")
