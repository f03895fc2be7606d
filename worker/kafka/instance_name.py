"""The name under which a process is a static member of its group, and whether another process has taken it.

A broker that was away for longer than a session may fence a member although no other process exists: an earlier request
of the same member is answered late. Only a client of another id under the same name is another process.
"""

import logging
import uuid
from typing import Final

from contract.errors import ShopstreamError, Unavailable
from contract.settings.servers import KafkaSettings
from worker.kafka.admin import KafkaAdmin

log = logging.getLogger(__name__)
SIGHTINGS_MAX: Final = 3  # of another process in a row: one look may see what a late request changes back


class InstanceFenced(ShopstreamError):
    """Another process runs under this instance's name; this one ends."""


class InstanceName:
    """The ids of one process in a group; `client_id` is different in every process."""

    def __init__(self, *, kafka: KafkaSettings, group: str, instance: str) -> None:
        self.group, self.instance_id = group, f"{group}-{instance}"
        self.client_id = f"{kafka.client.get('client.id', self.instance_id)}-{uuid.uuid4().hex[:12]}"
        self._kafka, self._instance = kafka, instance
        self._sightings = 0

    def is_free(self) -> bool:
        """Whether no other process has the name; False where that is not sure. Raises `InstanceFenced` if one has."""
        try:
            holder = KafkaAdmin(kafka=self._kafka).find_static_member(self.group, self.instance_id)
        except Unavailable as error:
            log.warning("Waiting to join the group again: %s", error)
            return False
        if holder in (None, self.client_id):
            self._sightings = 0
            return True
        self._sightings += 1
        if self._sightings >= SIGHTINGS_MAX:
            raise InstanceFenced(
                f"One process should run under the name of an instance. Found another one of {self.group} "
                f"with `worker.instance = {self._instance}`; its client id is {holder}."
            )
        return False
