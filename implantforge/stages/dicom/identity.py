"""Texts of the input that name the patient, so that the last look at a finished run can search for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from implantforge.core import InputError
from implantforge.stages.dicom import headers, sources

TAGS = (
    "PatientName", "PatientID", "PatientBirthDate", "OtherPatientIDs", "OtherPatientNames", "PatientBirthName",
    "PatientAddress", "PatientTelephoneNumbers", "AccessionNumber", "StudyInstanceUID", "SeriesInstanceUID",
    "FrameOfReferenceUID", "SOPInstanceUID",
)  # fmt: skip
"""PS3.15 Table E.1-1: what identifies a person or an instance and could slip into a file."""
LOOKED_AT = 48


def identity(path: str | Path) -> tuple[str, ...]:
    """Every distinct value of TAGS in up to LOOKED_AT files spread over the input; () for NIfTI and NRRD, which have none.

    Held in memory only, never written or logged.
    """
    path = Path(path)
    if path.is_file() and path.name.lower().endswith(sources.ARRAY_FILES):
        return ()
    found: set[str] = set()
    with headers.quiet(), sources.opened(path) as (members, _):
        step = max(1, len(members) // LOOKED_AT)
        for member in [*members[::step], *members[-1:]]:
            try:
                dataset = headers.dataset_of(member, [*TAGS, "SOPClassUID", "Modality", "Rows"])
                if dataset is not None:
                    found |= {_text(dataset, tag) for tag in TAGS}
            except InputError:
                continue
    return tuple(sorted(found - {""}))


def _text(dataset: Any, tag: str) -> str:
    """A tag's text, "" where it is absent or damaged: values are turned to text only when they are asked for."""
    try:
        return str(dataset.get(tag, "")).strip()
    except Exception:
        return ""
