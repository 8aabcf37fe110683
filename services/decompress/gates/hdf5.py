"""The structural gate an HDF5 file passes before a reader opens a single data set of it.

Every object is visited through hard links only.  What could read another file (external links, external
storage, virtual data sets), send a reader round in circles (soft links, two names for one object,
references), load code (unknown filters) or unpack to more than the budget is refused.  Lengths of
variable-length data are checked against the file itself (:mod:`.h5vlen`), since the library would allocate
whatever they say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import h5py
from h5py import h5a, h5d, h5g, h5l, h5o, h5t, h5z

from ...contract.causes import outside_archive
from ...contract.codes import Code, MrireconError, PermanentError
from ..limits import Limits
from . import hdf5_superblock as superblock
from . import hdf5_vlen as h5vlen

_ALLOWED_FILTERS = frozenset({h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32})
_NEVER_READ = frozenset({b"DownloadData.xml"})
"""In the root of a GE ScanArchive: told by it and refused as ``unsupported``, so nothing of it is opened."""
_MAX_TYPE_DEPTH = 16
_MAX_TYPE_MEMBERS = 1024


@dataclass(frozen=True)
class Contents:
    """What lies where: names of the children of the root and of each group in it (never shown)."""

    root: frozenset[bytes]
    groups: Mapping[bytes, frozenset[bytes]]


def refuse_truncated(file: BinaryIO, size: int, start: int) -> None:
    """Raise ``truncated`` when the superblock at ``start`` says that the file ends behind its last byte."""
    block = superblock.read(file, start)
    if block is None or block.offset_bytes != 8:
        # The library can read other widths, but no raw format has them, and what h5vlen reads depends on it.
        raise _corrupt()
    if block.end is None or block.end > size:
        raise PermanentError(
            Code.TRUNCATED,
            "An HDF5 file is shorter than it says: it was copied while it was being written, or cut. "
            "Send the scan again when it is complete.",
        )


def inspect(file: BinaryIO, size: int, limits: Limits) -> Contents:
    """Check the whole structure of an HDF5 file and return its top names.

    Parameters
    ----------
    file, size
        Seekable, ``size`` bytes long; HDF5 reads through it.
    limits
        The budgets.

    Raises
    ------
    PermanentError
        ``truncated``, ``h5_external``, ``h5_links``, ``h5_filter``, ``too_large``, ``h5_corrupt``.
    """
    start = superblock.find_signature(file, size)
    if start is None:
        raise _corrupt()
    refuse_truncated(file, size, start)
    try:
        with h5py.File(file, "r") as h5:
            gate = _Gate(file, size, limits)
            gate.run(h5.id)
    except MrireconError:
        raise
    except Exception as error:
        if outside_archive(error):
            raise
        raise _corrupt() from None
    return Contents(frozenset(gate.names[b""]), {k: frozenset(v) for k, v in gate.names.items() if k})


@dataclass
class _Gate:
    file: BinaryIO
    size: int
    limits: Limits
    names: dict[bytes, set[bytes]] = field(default_factory=dict)
    _seen: set[int] = field(default_factory=set)
    _objects: int = 0
    _declared: int = 0

    def run(self, root: Any) -> None:
        group = h5g.open(root, b"/")
        self._seen.add(h5o.get_info(group).addr)
        waiting: list[tuple[Any, bytes, int]] = [(group, b"", 0)]
        while waiting:
            group, path, depth = waiting.pop()
            self._attributes(group)
            children = self._links(group)
            if depth < 2:
                self.names[path] = set(children)
            if not _NEVER_READ.isdisjoint(self.names[b""]):
                return
            for name in children:
                child = h5o.open(group, name)
                self._once(child)
                if isinstance(child, h5g.GroupID):
                    if depth >= self.limits.max_h5_depth:
                        raise PermanentError(
                            Code.TOO_LARGE,
                            f"An HDF5 file nests more than {self.limits.max_h5_depth} groups. "
                            "Check what wrote the file.",
                        )
                    waiting.append((child, path + b"/" + name, depth + 1))
                    continue
                self._attributes(child)
                if isinstance(child, h5d.DatasetID):
                    self._dataset(child)
                elif isinstance(child, h5t.TypeID):
                    self._type(child)
                else:
                    raise _corrupt()

    def _links(self, group: Any) -> list[bytes]:
        """Return the names in a group; refuse anything but hard links, and too many of them."""
        found: list[tuple[bytes, int]] = []
        room = self.limits.max_h5_objects - self._objects

        def note(name: bytes, info: Any) -> bool | None:
            found.append((bytes(name), int(info.type)))
            return True if len(found) > room else None  # never raise inside the library's callback

        group.links.iterate(note, info=True)
        self._objects += len(found)
        if self._objects > self.limits.max_h5_objects:
            raise PermanentError(
                Code.TOO_LARGE,
                f"An HDF5 file holds more than {self.limits.max_h5_objects} objects. "
                "Check what wrote the file.",
            )
        for _, kind in found:
            if kind == h5l.TYPE_SOFT:
                raise _links("a soft link")
            if kind != h5l.TYPE_HARD:
                raise _external("a link to another file")
        return [name for name, _ in found]

    def _once(self, child: Any) -> None:
        address = h5o.get_info(child).addr
        if address in self._seen:
            raise _links("two names for one object")
        self._seen.add(address)

    def _attributes(self, thing: Any) -> None:
        count = h5a.get_num_attrs(thing)
        if count > self.limits.max_h5_attributes:
            raise PermanentError(
                Code.TOO_LARGE,
                f"An HDF5 object has more than {self.limits.max_h5_attributes} attributes. "
                "Check what wrote the file.",
            )
        for index in range(count):
            attribute = h5a.open(thing, index=index)
            self._type(attribute.get_type())
            points = _points(attribute.get_space())
            if points * attribute.get_type().get_size() > self.limits.max_xml_bytes:
                raise PermanentError(
                    Code.TOO_LARGE,
                    f"An HDF5 attribute declares more than {self.limits.max_xml_bytes} bytes. "
                    "Check what wrote the file.",
                )

    def _type(self, kind: Any, depth: int = 0) -> None:
        """Refuse references and types built to exhaust who reads them."""
        family = kind.get_class()
        if family == h5t.REFERENCE:
            raise _links("a reference")
        if depth > _MAX_TYPE_DEPTH:
            raise _corrupt()
        if family == h5t.COMPOUND:
            if kind.get_nmembers() > _MAX_TYPE_MEMBERS:
                raise _corrupt()
            for index in range(kind.get_nmembers()):
                self._type(kind.get_member_type(index), depth + 1)
        elif family in {h5t.ARRAY, h5t.VLEN}:
            self._type(kind.get_super(), depth + 1)

    def _dataset(self, dataset: Any) -> None:
        plan = dataset.get_create_plist()
        layout = plan.get_layout()
        if plan.get_external_count():
            raise _external("data that lie in another file")
        if layout == h5d.VIRTUAL:
            raise _external("a virtual data set, whose data lie in other files")
        for index in range(plan.get_nfilters()):
            if plan.get_filter(index)[0] not in _ALLOWED_FILTERS:
                raise PermanentError(
                    Code.H5_FILTER,
                    "An HDF5 data set is packed by a filter other than deflate, shuffle and fletcher32. "
                    "Write the file with one of these or uncompressed.",
                )
        kind = dataset.get_type()
        self._type(kind)
        self._sizes(dataset, plan, layout, kind.get_size())
        h5vlen.claimed(self.file, self.size, dataset, kind)

    def _sizes(self, dataset: Any, plan: Any, layout: int, item: int) -> None:
        """Compare what the data set declares with what the file stores and with the budget."""
        logical = _points(dataset.get_space()) * item
        stored = int(dataset.get_storage_size())
        self._declared += logical
        if self._declared > self.limits.max_raw_bytes:
            raise PermanentError(
                Code.TOO_LARGE,
                f"The data sets of an HDF5 file declare more than {self.limits.max_raw_bytes} bytes. "
                "Send fewer or smaller raw files.",
            )
        if layout == h5d.CONTIGUOUS and stored:
            offset = dataset.get_offset()
            if offset is None:
                stored = 0  # declared, but never written
            elif offset + stored > self.size:
                raise _corrupt()
        if stored > self.size:
            raise _corrupt()
        unpacked = logical
        if layout == h5d.CHUNKED:
            chunk = item
            for edge in plan.get_chunk():
                chunk *= int(edge)
            if plan.get_nfilters() == 0 and stored and chunk > stored:
                raise _corrupt()
            # A chunk is unpacked whole, also where it is larger than the data set.
            unpacked = max(logical, chunk if stored else 0)
        if unpacked > self.limits.ratio_floor_bytes and unpacked > self.limits.max_ratio * max(1, stored):
            raise PermanentError(
                Code.TOO_LARGE,
                f"An HDF5 data set declares more than {self.limits.max_ratio} times the bytes that are "
                "stored for it, which raw data never do. Check what wrote the file.",
            )


def _points(space: Any) -> int:
    """Return the number of elements of a data space, without overflow."""
    if space.get_simple_extent_type() == h5py.h5s.NULL:
        return 0
    points = 1
    for edge in space.get_simple_extent_dims():
        points *= int(edge)
    return points


def _corrupt() -> PermanentError:
    return PermanentError(
        Code.H5_CORRUPT,
        "An HDF5 file is damaged: its structure does not hold. Export and send the scan again.",
    )


def _links(what: str) -> PermanentError:
    return PermanentError(
        Code.H5_LINKS,
        f"An HDF5 file holds {what}; raw data files need none. Write the data sets under one name each.",
    )


def _external(what: str) -> PermanentError:
    return PermanentError(
        Code.H5_EXTERNAL,
        f"An HDF5 file holds {what}; nothing outside the archive is read. Pack the data itself.",
    )
