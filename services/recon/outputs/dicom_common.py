"""What every DICOM file of a scan shares: patient, study, software, and how a file is written."""

from __future__ import annotations

import math
from pathlib import Path

from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

from ...contract.ids import uid
from .facts import METHOD_NAMES, Facts

_IMPLEMENTATION = uid("implementation", ["mrirecon"])


def study(facts: Facts) -> Dataset:
    """Return the attributes of patient, study and software."""
    data = Dataset()
    # A pseudonym a scan, because one constant patient would merge all scans of a PACS into one.
    data.PatientName = f"MRIRECON^{facts.scan_id.upper()}"
    data.PatientID = f"mrirecon-{facts.scan_id}"
    data.PatientBirthDate = data.PatientSex = ""
    data.PatientIdentityRemoved = "YES"
    data.DeidentificationMethod = "Built from a whitelist; nothing copied from the raw header"
    data.DeidentificationMethodCodeSequence = Sequence(
        [_code("113100", "DCM", "Basic Application Confidentiality Profile")]
    )
    data.LongitudinalTemporalInformationModified = "REMOVED"
    data.StudyInstanceUID = uid("study", [facts.scan_id])
    data.StudyID = facts.scan_id[:16]
    data.StudyDate = data.StudyTime = data.AccessionNumber = data.ReferringPhysicianName = ""
    if facts.label is not None:
        data.StudyDescription = facts.label
    # The scanner's vendor from a closed list; what made these images as contributing equipment.
    data.Manufacturer = facts.acquisition.vendor
    data.ContributingEquipmentSequence = Sequence([_equipment(facts)])
    data.BurnedInAnnotation, data.LossyImageCompression = "NO", "00"
    return data


def write(path: Path, data: Dataset) -> None:
    """Write a new file: explicit little endian, no compression, the same bytes in every run."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = data.SOPClassUID
    meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(_IMPLEMENTATION)
    meta.ImplementationVersionName = "MRIRECON"
    file = FileDataset(str(path), data, file_meta=meta, preamble=b"\0" * 128)
    dcmwrite(path, file, enforce_file_format=True, overwrite=False)


def decimal(value: float | None, factor: float = 1.0) -> str:
    """Return a decimal string of at most 16 characters, empty where nothing is known."""
    if value is None or not math.isfinite(value):
        return ""
    return format_number_as_ds(float(value) * factor + 0.0)


def _equipment(facts: Facts) -> Dataset:
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = Sequence([_code("109102", "DCM", "Processing Equipment")])
    item.Manufacturer = "mrirecon"
    item.ManufacturerModelName = f"mrirecon {METHOD_NAMES.get(facts.method, facts.method)}"
    item.SoftwareVersions = facts.version
    item.ContributionDescription = facts.summary[:1024]
    return item


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item
