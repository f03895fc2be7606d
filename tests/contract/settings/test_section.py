"""Sections as JSON: checkpoints and reports of earlier versions are read, and what is written has not changed."""

import msgspec
import pytest

from contract.settings.model import ModelConfig
from contract.settings.section import Section, decode_section, encode_section
from contract.settings.training import TrainingConfig

# As written by a version whose sections were msgspec Structs.
EARLIER_MODEL = (
    b'{"architecture":"mmoe","embedding":4,"hidden":8,"factors":3,"experts":2,"expert":6,"tower":5,"rows":256,"own":1,'
    b'"levels":1,"cross":0,"cross_rank":0,"bins":0,"members":1,"dropout":0.0}'
)
EARLIER_TRAINING = (
    b'{"batch":512,"epochs":4,"learning_rate":0.005,"weight_decay":0.01,"patience":2,"held_out":0.2,"seed":7,'
    b'"balance":"static","turns":false,"device":"cpu","precision":"float32","focus":0.0,"threads":2,"update_rate":0.2,'
    b'"update_batch":256,"replay":1.0,"distillation":0.5,"row_after":5,"unused_days":30.0,"keep":4096,'
    b'"stream_rows":2000000,"margin":0.05,"pause_s":30.0,"records_max":20000,"user_share":0.05,"jump":1.75,'
    b'"refusals_max":3}'
)
SMALL_MODEL = ModelConfig(embedding=4, hidden=8, factors=3, experts=2, expert=6, tower=5, rows=256)


@pytest.mark.parametrize(
    ("content", "section"), [(EARLIER_MODEL, SMALL_MODEL), (EARLIER_TRAINING, TrainingConfig(threads=2))]
)
def test_json_of_an_earlier_version_is_read_and_its_values_are_written_alike(content: bytes, section: Section) -> None:
    assert msgspec.json.decode(content, type=type(section), dec_hook=decode_section) == section
    written = msgspec.json.decode(msgspec.json.encode(section, enc_hook=encode_section))
    assert msgspec.json.decode(content).items() <= written.items()


def test_values_that_json_lacks_have_their_defaults() -> None:
    assert msgspec.json.decode(b'{"hidden":9}', type=ModelConfig, dec_hook=decode_section) == ModelConfig(hidden=9)


@pytest.mark.parametrize("content", [b'{"hiden":9}', b'{"hidden":"9"}', b'{"hidden":0}', b"3"])
def test_json_that_is_no_section_is_refused(content: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(content, type=ModelConfig, dec_hook=decode_section)


def test_other_types_are_not_encoded() -> None:
    with pytest.raises(NotImplementedError, match=r"should be made of known types\. Found object"):
        msgspec.json.encode(object(), enc_hook=encode_section)
