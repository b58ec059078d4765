"""The files a DICOMDIR names, inside its own folder only."""

from __future__ import annotations

import io
from pathlib import Path

from implantforge.core import InputError
from implantforge.stages.dicom.rules import Finding, hit
from implantforge.stages.dicom.sources import MAX_FILES, MAX_MEMBER_BYTES

STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"


def referenced(path: Path) -> tuple[list[Path], list[Finding]]:
    """Existing files in the order named, and a finding when some are not there or lie outside the folder."""
    import pydicom

    if path.stat().st_size > MAX_MEMBER_BYTES // 8:
        raise InputError("CT: the DICOMDIR is too large to be one")
    try:
        data = pydicom.dcmread(io.BytesIO(path.read_bytes()), specific_tags=["DirectoryRecordSequence"])
        named = [record.get("ReferencedFileID") for record in data.get("DirectoryRecordSequence") or []]
    except Exception as error:
        raise InputError(f"CT: the DICOMDIR cannot be read ({type(error).__name__}): give the folder instead") from None
    root = path.resolve().parent
    found: list[Path] = []
    absent = outside = 0
    for parts in named:
        if not parts:
            continue
        names = [parts] if isinstance(parts, str) else [str(p) for p in parts]
        at = root.joinpath(*names)
        if any(
            n in ("..", ".") or "/" in n or "\\" in n or "\0" in n for n in names
        ) or not at.resolve().is_relative_to(root):
            outside += 1
        elif at.is_file():
            found.append(at)
        else:
            absent += 1
        if len(found) > MAX_FILES:
            raise InputError(f"CT: the DICOMDIR names more than {MAX_FILES} files: give the folder of one study")
    findings = []
    if absent or outside:
        findings.append(
            hit("incomplete_medium", f"the DICOMDIR names {absent} absent files and {outside} outside its folder")
        )
    return found, findings
