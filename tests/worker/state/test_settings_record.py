"""A changed setting that stored data depend on is told."""

import pytest

from contract.settings.reading import Settings
from contract.settings.servers import RedisSettings
from worker.redis.client import RedisClient
from worker.state.settings_record import report_changed_settings


def test_a_changed_setting_is_told_once_without_a_password(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    # given
    client, former = RedisClient(url=redis_url, timeout_s=20), Settings()
    changed = former.model_copy(
        update={
            "lists": former.lists.model_copy(update={"decision_ttl_s": 60}),
            "redis": RedisSettings(cache_url="redis://me:secret@other:1/0"),
        }
    )
    client.pipeline([("SET", "shop:settings", "x")])
    # when
    reported_names = [report_changed_settings(client, settings) for settings in (former, former, changed, changed)]
    # then
    assert reported_names == [[], [], ["lists.decision_ttl_s", "redis.cache_url"], []]
    assert "`lists.decision_ttl_s` has changed from `604800` to `60`" in caplog.text
    assert "secret" not in caplog.text
    assert b"secret" not in b"".join(client.pipeline([("HGETALL", "shop:settings")])[0])
    client.close()
