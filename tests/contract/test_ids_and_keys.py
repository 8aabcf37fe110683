import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrirecon.contract import ids, keys, states
from mrirecon.contract.codes import Code, IncompleteError, PermanentError, RetryableError
from mrirecon.contract.profiles import PROFILES, RECON_VERSION, Method, profile

hex16 = st.text("0123456789abcdef", min_size=16, max_size=16)
hex8 = st.text("0123456789abcdef", min_size=8, max_size=8)


def test_the_scan_id_is_of_the_bytes_alone():
    # first 16 digits of SHA-256 of "abc" (FIPS 180-2, B.1)
    assert ids.scan_id(io.BytesIO(b"abc")) == "ba7816bf8f01cfea"


def test_another_method_or_version_is_another_reconstruction():
    base = profile()
    made = {
        ids.recon_id("0" * 16, settings, version)
        for settings in (base.settings(), profile(method="grappa").settings(), PROFILES["phase"].settings())
        for version in ("1", "2")
    }
    assert len(made) == 6
    assert all(re.fullmatch("[0-9a-f]{8}", each) for each in made)


@given(st.dictionaries(st.text(max_size=5), st.integers(), max_size=5))
def test_the_order_of_settings_does_not_matter(settings):
    turned = dict(reversed(settings.items()))
    assert ids.recon_id("a", settings, "1") == ids.recon_id("a", turned, "1")


@given(st.text(max_size=20), st.lists(st.integers(), max_size=4))
def test_uids_are_valid_dicom(level, parts):
    uid = ids.uid(level, parts)
    assert re.fullmatch(r"2\.25\.(0|[1-9][0-9]*)", uid)
    assert len(uid) <= 64


def test_uids_differ_where_the_parts_differ():
    assert len({ids.uid("series", p) for p in (["1", "2"], ["12"], [1, 2, 3], [])}) == 4


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True), st.sampled_from(keys.Priority))
def test_site_and_priority_come_back_from_the_key(site, priority):
    read = keys.parse_incoming(keys.incoming(site, priority, "any name.tar"))
    assert (read.site, read.priority) == (site, priority)


@pytest.mark.parametrize(
    "key",
    [
        "x.tar",
        "incoming/x.tar",
        "incoming/site/x.tar",
        "incoming/site/urgent/x.tar",
        "incoming/si te/stat/x.tar",
        "other/site/stat/x.tar",
        "incoming/../stat/x",
        "",
    ],
)
def test_another_key_is_refused_and_not_repeated(key):
    with pytest.raises(PermanentError) as refused:
        keys.parse_incoming(key)
    assert refused.value.code is Code.BAD_NAME
    assert not key or key not in refused.value.message


@given(hex16, hex8)
def test_keys_of_a_scan_hold_ids_only(scan, recon):
    assert keys.record(scan, recon) == f"images/{scan}/{recon}/scan.json"
    assert keys.kspace(scan) == f"kspace/{scan}/kspace.h5"


@pytest.mark.parametrize("bad", ["../x", "ABC", "", "a/b", "Doe^John"])
def test_no_key_is_made_of_anything_but_an_id(bad):
    with pytest.raises(ValueError, match="id"):
        keys.kspace(bad)


def test_a_delivery_key_hides_the_name():
    assert "doe" not in states.delivery_pk("bucket", "incoming/a/stat/doe.tar", "v1")
    assert states.delivery_pk("b", "k", "1") != states.delivery_pk("b", "k", "2")
    assert states.delivery_pk("a", "bc", None) != states.delivery_pk("ab", "c", None)


def test_profiles_are_named_and_refuse_what_they_do_not_know():
    assert profile().name == "routine"
    assert profile().method is Method.AUTO
    assert profile("fast").method is Method.GRAPPA
    assert profile("routine", "raki").method is Method.RAKI
    assert profile("routine", "espirit").method is Method.PICS, "the name it had before"
    for call in (("unknown", None), ("routine", "unknown")):
        with pytest.raises(PermanentError, match="bad_settings"):
            profile(*call)


def test_errors_end_as_their_family_says():
    assert PermanentError(Code.GEOMETRY, "x").end == "rejected"
    assert RetryableError(Code.STORAGE, "x").end == "failed"
    assert IncompleteError("x").end == "incomplete"
    assert IncompleteError("x").code is Code.INCOMPLETE


def test_a_profile_and_a_scan_make_the_reconstruction_id():
    wanted = profile("fast")
    expected = ids.recon_id("0" * 16, wanted.settings(), RECON_VERSION)
    assert wanted.recon_id("0" * 16) == expected
    assert profile("routine").recon_id("0" * 16) != expected
