"""The gate every XML header passes before anything else parses it.

No document type, so no entity of any kind (billion laughs, external files): an ISMRMRD header needs none.
Size, depth and number of elements are bounded while expat walks, before a tree exists.
"""

from __future__ import annotations

from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from ...contract.codes import Code, PermanentError
from ..limits import Limits

_NAMESPACE_SEPARATOR = "}"


def parse(xml: bytes, limits: Limits | None = None) -> Element:
    """Return the root element of ``xml``; names carry their namespace as ``{uri}name``.

    Raises
    ------
    PermanentError
        ``xml_too_large`` above the size, depth or number of elements of ``limits``; ``xml_forbidden`` for a
        document type or an entity; ``xml_invalid`` for what is not well-formed XML.
    """
    limits = limits or Limits()
    if len(xml) > limits.max_xml_bytes:
        raise PermanentError(
            Code.XML_TOO_LARGE,
            f"The XML header has {len(xml)} bytes; at most {limits.max_xml_bytes} are read. "
            "Check what wrote the file.",
        )
    builder = TreeBuilder()
    walker = _Walker(builder, limits)
    parser = expat.ParserCreate(namespace_separator=_NAMESPACE_SEPARATOR)
    parser.buffer_text = True
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    parser.StartDoctypeDeclHandler = _forbidden
    parser.EntityDeclHandler = _forbidden
    parser.UnparsedEntityDeclHandler = _forbidden
    parser.ExternalEntityRefHandler = _forbidden
    parser.SkippedEntityHandler = _forbidden
    parser.StartElementHandler = walker.start
    parser.EndElementHandler = walker.end
    parser.CharacterDataHandler = builder.data
    try:
        # The whole text at once: expat before 2.6 takes quadratic time on long tokens fed in pieces.
        parser.Parse(_without_padding(xml), True)
    except (expat.ExpatError, ValueError, LookupError):
        # The parser's own words would quote the header.
        raise PermanentError(
            Code.XML_INVALID,
            "The XML header is not well-formed XML; expected an ISMRMRD header. Export the scan again.",
        ) from None
    return builder.close()


def check(xml: bytes, limits: Limits | None = None) -> bytes:
    """Pass ``xml`` through the gate and return it, for a parser that wants the text itself."""
    parse(xml, limits)
    return _without_padding(xml)


def _without_padding(xml: bytes) -> bytes:
    """Drop the NUL bytes that C programs leave behind a string of fixed length (not UTF-16's own)."""
    return xml if xml[:2] in {b"\xff\xfe", b"\xfe\xff"} else xml.rstrip(b"\0")


def _forbidden(*_: object) -> NoReturn:
    raise PermanentError(
        Code.XML_FORBIDDEN,
        "The XML header declares a document type or an entity; an ISMRMRD header needs neither. "
        "Remove the declaration or export the scan again.",
    )


class _Walker:
    """Builds the tree and stops at too many or too deep elements."""

    def __init__(self, builder: TreeBuilder, limits: Limits) -> None:
        self._builder = builder
        self._limits = limits
        self._depth = 0
        self._elements = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        self._elements += 1
        if self._depth > self._limits.max_xml_depth:
            raise PermanentError(
                Code.XML_TOO_LARGE,
                f"The XML header nests more than {self._limits.max_xml_depth} elements; "
                "an ISMRMRD header nests about ten. Check what wrote the file.",
            )
        if self._elements > self._limits.max_xml_elements:
            raise PermanentError(
                Code.XML_TOO_LARGE,
                f"The XML header has more than {self._limits.max_xml_elements} elements. "
                "Check what wrote the file.",
            )
        self._builder.start(_tag(name), {_tag(key): value for key, value in attributes.items()})

    def end(self, name: str) -> None:
        self._depth -= 1
        self._builder.end(_tag(name))


def _tag(name: str) -> str:
    """Turn expat's ``uri}name`` into ElementTree's ``{uri}name``."""
    return "{" + name if _NAMESPACE_SEPARATOR in name else name
