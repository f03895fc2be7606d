"""Copies what a run has published, on topics and in Redis, into the delivery ledger."""

from contract.messages import DEAD_LETTER_HEADER, Decision, read_dead_letter, read_decision, read_scored_row
from testkit.audits.delivery_ledger import DeliveryLedger
from testkit.audits.state_audit import StateAudit
from testkit.environment.kafka_log import KafkaLog
from testkit.environment.run_environment import RunEnvironment


def record_outputs(
    ledger: DeliveryLedger, environment: RunEnvironment, audit: StateAudit, *, keeps_claims: bool = True
) -> None:
    """Record decisions, scored rows, dead letters, and the decisions in Redis of all orders in the ledger.

    Where Redis may have lost claims (`keeps_claims` False), a published decision counts as cached.
    """
    topics = environment.topics
    log = KafkaLog(bootstrap=environment.kafka.bootstrap)
    published = list[Decision]()
    for record in log.read(topics.decisions):
        published.append(read_decision(record.value or b""))
        ledger.record_decision(published[-1])
    for record in log.read(topics.scored):
        ledger.record_scored_row(read_scored_row(record.value or b""))
    for record in log.read(topics.dead_letters):
        header = dict(record.headers)[DEAD_LETTER_HEADER]
        ledger.record_dead_letter(read_dead_letter(header), record.key, record.value)
    if not keeps_claims:
        ledger.record_cached(published)
    stored = audit.read_decisions(list(ledger.orders))
    ledger.record_cached(read_decision(value) for value in stored if value is not None)
