import contextlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrirecon.contract.messages import Delivery, NotAMessageError, ReconRequest, deliveries

S3 = {
    "Records": [
        {
            "eventName": "ObjectCreated:Put",
            "eventTime": "2026-11-22T03:00:00.000Z",
            "s3": {
                "bucket": {"name": "raw"},
                "object": {
                    "key": "incoming/a/stat/my+scan%281%29.tar",
                    "size": 9,
                    "eTag": "e",
                    "sequencer": "0A",
                    "versionId": "v1",
                },
            },
        }
    ]
}
EVENTBRIDGE = {
    "source": "aws.s3",
    "detail-type": "Object Created",
    "time": "2026-11-22T03:00:00Z",
    "detail": {
        "bucket": {"name": "raw"},
        "object": {
            "key": "incoming/a/stat/my scan(1).tar",
            "size": 9,
            "etag": "e",
            "sequencer": "0A",
            "version-id": "v1",
        },
    },
}
GATEWAY = {
    "source": "aws.storagegateway",
    "detail-type": "Storage Gateway Object Upload Event",
    "time": "2026-11-22T03:00:00Z",
    "detail": {
        "bucket-name": "arn:aws:s3:::raw",
        "object-key": "incoming/a/stat/my scan(1).tar",
        "object-size": 9,
    },
}


def test_three_senders_announce_the_same_delivery():
    (plain,) = deliveries(json.dumps(S3))
    (bus,) = deliveries(json.dumps(EVENTBRIDGE))
    (gateway,) = deliveries(json.dumps(GATEWAY))
    assert plain == bus
    assert plain == Delivery(
        bucket="raw",
        key="incoming/a/stat/my scan(1).tar",
        version="v1",
        size=9,
        etag="e",
        sequencer="0A",
        announced_at="2026-11-22T03:00:00.000+00:00",
    )
    assert gateway == replace(plain, version=None, etag=None, sequencer=None)


def test_what_creates_no_object_announces_nothing():
    assert deliveries(json.dumps({"Event": "s3:TestEvent"})) == []
    removed = json.loads(json.dumps(S3))
    removed["Records"][0]["eventName"] = "ObjectRemoved:Delete"
    assert deliveries(json.dumps(removed)) == []


def test_an_unversioned_bucket_has_no_version():
    event = json.loads(json.dumps(S3))
    event["Records"][0]["s3"]["object"]["versionId"] = "null"
    assert deliveries(json.dumps(event))[0].version is None


@given(
    st.one_of(
        st.text(max_size=30),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["Records", "source", "detail", "s3", "object", "key", "Event"]),
                    inner,
                    max_size=3,
                )
            ),
            max_leaves=8,
        ).map(json.dumps),
    )
)
def test_any_other_message_is_refused_and_nothing_else_happens(body):
    with contextlib.suppress(NotAMessageError):
        assert deliveries(body) == []


@pytest.mark.parametrize("body", ["", "[]", "DOE^JOHN", '{"Records": ["x"]}', '{"Records": 3}', '{"a": 1}'])
def test_a_refusal_does_not_repeat_the_message(body):
    with pytest.raises(NotAMessageError) as refused:
        deliveries(body)
    assert not body or body not in str(refused.value)


REQUEST = ReconRequest(
    scan_id="0" * 16,
    recon_id="1" * 8,
    profile="routine",
    site="a",
    priority="stat",
    kspace_key="kspace/0/k.h5",
    kspace_sha256="ab",
    kspace_bytes=3,
    raw=Delivery(bucket="raw", key="incoming/a/stat/x.tar"),
    intake_seconds={"read": 0.5},
    intake_warnings=["Few lines."],
    label="knee 7",
)


def test_a_request_comes_back_as_it_was():
    assert ReconRequest.loads(REQUEST.dumps()) == REQUEST


def test_a_request_of_a_later_minor_form_is_read():
    data = json.loads(REQUEST.dumps())
    data["new_field"] = 1
    assert ReconRequest.loads(json.dumps(data)) == REQUEST


@pytest.mark.parametrize("gone", ["intake_seconds", "intake_warnings", "label"])
def test_a_request_of_an_earlier_minor_form_is_read(gone):
    data = json.loads(REQUEST.dumps())
    del data[gone]
    assert not getattr(ReconRequest.loads(json.dumps(data)), gone)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "other"},
        {"v": 99},
        {"scan_id": None, "site": None},
        {"raw": {"nope": 1}},
        {"intake_seconds": 3},
        {"intake_seconds": "ab"},
        {"intake_warnings": 3},
        {"label": "DOE^JANE"},
        {"label": 3},
    ],
)
def test_another_message_is_no_request(change):
    data = json.loads(REQUEST.dumps())
    data.update({k: v for k, v in change.items() if v is not None})
    for gone in [k for k, v in change.items() if v is None]:
        del data[gone]
    with pytest.raises(NotAMessageError):
        ReconRequest.loads(json.dumps(data))
