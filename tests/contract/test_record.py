import json

import jsonschema
import pytest

from mrirecon.contract.codes import Code, IncompleteError, PermanentError, RetryableError
from mrirecon.contract.record import KEYS, dumps, end_record, new_record, schema


def test_the_schema_is_one_and_names_every_key():
    jsonschema.Draft202012Validator.check_schema(schema())
    assert set(schema()["properties"]) == set(KEYS)
    assert set(schema()["required"]) == set(KEYS) - {"label"}, "records of earlier versions have no label"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "done"),
        (PermanentError(Code.GEOMETRY, "Sentence."), "rejected"),
        (RetryableError(Code.DISK_FULL, "Sentence."), "failed"),
        (IncompleteError("Sentence."), "incomplete"),
        (ValueError("DOE^JOHN"), "failed"),
    ],
)
def test_every_end_is_a_valid_record(error, status):
    record = end_record(new_record("0" * 16), error)
    assert record["status"] == status
    jsonschema.validate(json.loads(dumps(record)), schema())
    assert "DOE" not in dumps(record)


def test_a_record_holds_numbers_only_json_knows():
    record = new_record()
    record["quality"] = {"snr": float("nan")}
    with pytest.raises(ValueError, match="JSON"):
        dumps(record)
