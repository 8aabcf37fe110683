"""One 512-byte tar header and the extended records before it, read strictly (POSIX.1-2001 pax, ustar, GNU).

Strictly, because two readers that take one header differently are how files are hidden in archives: what is
not exactly right is ``corrupt_archive``, not repaired.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...contract.codes import Code, PermanentError

BLOCK = 512
_OCTAL_LIMIT = 8**11
_MAGIC_POSIX = b"ustar\x0000"
_MAGIC_GNU = b"ustar  \x00"

_ONCE = frozenset({b"path", b"size", b"linkpath", b"GNU.sparse.name", b"GNU.sparse.realsize"})

REGULAR = frozenset({b"0", b"\0", b"7"})
"""Regular files; ``7`` (contiguous) is to be treated as one."""
FOLDER = b"5"
LINKS = frozenset({b"1", b"2"})
SPARSE = b"S"
PAX = frozenset({b"x", b"X"})
PAX_GLOBAL = b"g"
GNU_LONG_NAME = b"L"
GNU_LONG_LINK = b"K"


@dataclass(frozen=True)
class Header:
    """The fields of a header block that the walk needs (``size`` in bytes)."""

    name: bytes
    type: bytes
    size: int
    is_sparse: bool = False


def corrupt(finding: str) -> PermanentError:
    """Return the error for an archive whose structure does not hold."""
    return PermanentError(Code.CORRUPT_ARCHIVE, finding + " Pack and send the scan again.")


def checksum_fits(block: bytes) -> bool:
    """Tell whether a header block's checksum is right (sum of unsigned or, from old tars, signed bytes)."""
    try:
        stored = _octal(block[148:156])
    except PermanentError:
        return False
    blank = block[:148] + b" " * 8 + block[156:]
    unsigned = sum(blank)
    return stored in {unsigned, unsigned - 256 * sum(byte > 127 for byte in blank)}


def looks_like_tar(block: bytes) -> bool:
    """Tell whether ``block`` is a header or bears the magic of one."""
    return len(block) == BLOCK and (
        block[257:265] in {_MAGIC_POSIX, _MAGIC_GNU} or (block[0] != 0 and checksum_fits(block))
    )


def parse(block: bytes) -> Header:
    """Return the fields of a header block.

    Raises
    ------
    PermanentError
        ``corrupt_archive`` for a wrong checksum, a negative size or a number that is none.
    """
    if not checksum_fits(block):
        raise corrupt("A header of the tar has a wrong checksum: what follows it cannot be trusted.")
    name = _text(block[:100])
    if block[257:265] == _MAGIC_POSIX and (prefix := _text(block[345:500])):
        name = prefix + b"/" + name
    kind = block[156:157]
    if kind == b"\0" and name.endswith(b"/"):
        kind = FOLDER  # before ustar a folder was an empty file with a slash at its end
    size = _number(block[124:136])
    real_size = _number(block[483:495]) if kind == SPARSE else 0
    return Header(name, kind, max(size, real_size), is_sparse=kind == SPARSE)


def extended(header: Header, records: dict[bytes, bytes], long_name: bytes | None) -> Header:
    """Return ``header`` with what the extended headers before it say.

    Raises
    ------
    PermanentError
        ``corrupt_archive`` when a size is said twice and differently.
    """
    name, size = header.name, header.size
    sparse = header.is_sparse or any(key.startswith(b"GNU.sparse.") for key in records)
    if long_name is not None:
        name = long_name
    name = records.get(b"path", name)
    name = records.get(b"GNU.sparse.name", name)
    if b"size" in records:
        said = _decimal(records[b"size"])
        # A size beyond the octal field is why the record exists; below that both must say the same.
        if said != size and (said < _OCTAL_LIMIT or size not in {0, _OCTAL_LIMIT - 1, said % _OCTAL_LIMIT}):
            raise corrupt("A member's size is given twice and differently.")
        size = said
    if sparse:
        for key in (b"GNU.sparse.realsize", b"GNU.sparse.size"):
            size = max(size, _decimal(records.get(key, b"0")))
    return Header(name, header.type, size, is_sparse=sparse)


def parse_pax(data: bytes) -> dict[bytes, bytes]:
    """Return the records ``<length> <key>=<value><newline>`` of an extended header.

    Raises
    ------
    PermanentError
        ``corrupt_archive`` when a record's length does not fit, or a key that places data comes twice.
    """
    records: dict[bytes, bytes] = {}
    data = data.rstrip(b"\0")
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        if space < 0:
            raise corrupt("An extended header of the tar is broken.")
        length = _decimal(data[at:space])
        record = data[space + 1 : at + length]
        key, equals, value = record[:-1].partition(b"=")
        if at + length > len(data) or record[-1:] != b"\n" or not equals or not key:
            raise corrupt("An extended header of the tar is broken.")
        if key in records and key in _ONCE:
            raise corrupt("An extended header of the tar gives a name or size twice.")
        records[key] = value
        at += length
    return records


def places_data(records: dict[bytes, bytes]) -> bool:
    """Tell whether records change where or how long a member is (never allowed for all members at once)."""
    return any(
        key in {b"path", b"size", b"linkpath"} or key.startswith((b"GNU.sparse.", b"GNU.volume."))
        for key in records
    )


def _text(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]


def _octal(field: bytes) -> int:
    text = field.replace(b"\0", b" ").strip(b" ")
    if not text:
        return 0
    if not all(byte in b"01234567" for byte in text):
        raise corrupt("A header of the tar holds a number that is none.")
    return int(text, 8)


def _number(field: bytes) -> int:
    """Return a size: octal, or base 256 where the first bit is set (GNU; negative ones are refused)."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    if field[0] & 0x80:
        raise corrupt("A header of the tar gives a negative or absurd size.")
    return _octal(field)


def _decimal(text: bytes) -> int:
    if not text or len(text) > 20 or not all(byte in b"0123456789" for byte in text):
        raise corrupt("An extended header of the tar holds a number that is none.")
    return int(text)
