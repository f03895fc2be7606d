"""The settings of `shop.toml`, one class for each table; their names are imported from here."""

from contract.settings.model import ModelConfig
from contract.settings.monitor import MonitorConfig
from contract.settings.reading import Settings, config_path, describe_errors, read_settings
from contract.settings.section import Section, decode_section, encode_section
from contract.settings.servers import KafkaSettings, RedisSettings, TopicSettings
from contract.settings.training import TrainingConfig
from contract.settings.worker import FeedbackSettings, LabelDelay, ListSettings, LogSettings, Rule, WorkerSettings

__all__ = [
    "FeedbackSettings",
    "KafkaSettings",
    "LabelDelay",
    "ListSettings",
    "LogSettings",
    "ModelConfig",
    "MonitorConfig",
    "RedisSettings",
    "Rule",
    "Section",
    "Settings",
    "TopicSettings",
    "TrainingConfig",
    "WorkerSettings",
    "config_path",
    "decode_section",
    "describe_errors",
    "encode_section",
    "read_settings",
]
