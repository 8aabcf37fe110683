"""The XML gate: no document type, bounded size, depth and number, no header text in a sentence."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrirecon.contract.codes import Code, PermanentError
from mrirecon.decompress.gates import xml as xmlgate
from mrirecon.decompress.limits import Limits

NAMESPACE = "http://www.ismrm.org/ISMRMRD"
HEADER = f'<?xml version="1.0"?><ismrmrdHeader xmlns="{NAMESPACE}"><a unit="mm">1</a></ismrmrdHeader>'
SECRET = "PHI^SENTINEL"


def code_of(xml: bytes, limits: Limits | None = None) -> Code:
    with pytest.raises(PermanentError) as caught:
        xmlgate.parse(xml, limits)
    assert SECRET not in caught.value.message
    return caught.value.code


def test_a_plain_header_is_parsed_with_its_namespace():
    root = xmlgate.parse(HEADER.encode())
    assert root.tag == f"{{{NAMESPACE}}}ismrmrdHeader"
    child = root.find(f"{{{NAMESPACE}}}a")
    assert child is not None
    assert (child.text, child.get("unit")) == ("1", "mm")
    assert xmlgate.check(HEADER.encode()) == HEADER.encode()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig"])
def test_encodings_that_xml_must_know(encoding):
    text = HEADER.replace("1</a>", "ä</a>").encode(encoding)
    assert xmlgate.parse(text)[0].text == "ä"


def test_nul_padding_of_fixed_length_strings_is_no_error():
    assert xmlgate.parse(HEADER.encode() + b"\0" * 7)[0].text == "1"


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE a [<!ENTITY e "x">]>',
        '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE a SYSTEM "http://127.0.0.1/x.dtd">',
        '<!DOCTYPE a [<!ENTITY % p SYSTEM "file:///etc/passwd"> %p;]>',
        '<!DOCTYPE a [<!NOTATION n SYSTEM "x"><!ENTITY e SYSTEM "y" NDATA n>]>',
        "<!DOCTYPE a>",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le-bom"])
def test_a_document_type_is_forbidden_in_any_encoding(doctype, encoding):
    text = f"{doctype}<a>{SECRET}</a>"
    xml = (
        codecs.BOM_UTF16_LE + text.encode("utf-16-le")
        if encoding == "utf-16-le-bom"
        else text.encode(encoding)
    )
    assert code_of(xml) == Code.XML_FORBIDDEN


def test_billion_laughs_expands_nothing():
    entities = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 30))
    assert code_of(f'<!DOCTYPE a [<!ENTITY l0 "ha">{entities}]><a>&l29;</a>'.encode()) == Code.XML_FORBIDDEN


@pytest.mark.parametrize(
    "xml",
    [
        b"",
        b"\0\0",
        b"not xml",
        b"<a>",
        b"<a></b>",
        b"<a/><b/>",
        b"<a>&undefined;</a>",
        b"<a>\x01</a>",
        b"\x89HDF\r\n\x1a\n",
        b'<?xml version="1.0" encoding="no-such"?><a/>',
        f"<{SECRET}".encode(),
        b"<a>\xff</a>",
    ],
)
def test_what_is_not_xml_is_invalid(xml):
    assert code_of(xml) == Code.XML_INVALID


def test_size_depth_and_elements_are_bounded():
    assert code_of(b"<a>" * 200_000 + b"</a>" * 200_000) == Code.XML_TOO_LARGE
    assert code_of(b"<a>" + b" " * (4 << 20) + b"</a>") == Code.XML_TOO_LARGE
    assert code_of(b"<a>" + b"<b/>" * 200_001 + b"</a>") == Code.XML_TOO_LARGE
    assert code_of(HEADER.encode(), Limits(max_xml_depth=1)) == Code.XML_TOO_LARGE


@given(st.binary(max_size=400) | st.text("<>/&;!ab \"'[]DOCTYPEN%-?x=", max_size=80).map(str.encode))
def test_any_bytes_end_in_a_tree_or_one_of_three_codes(xml):
    verdict = None
    try:
        xmlgate.parse(xml)
    except PermanentError as error:
        verdict = error.code
    assert verdict in {None, Code.XML_FORBIDDEN, Code.XML_INVALID, Code.XML_TOO_LARGE}
