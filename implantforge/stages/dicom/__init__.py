"""Any CT in, one trusted volume out: DICOM in all its forms, NIfTI and NRRD, read right or refused with the reason."""

from __future__ import annotations

from implantforge.stages.dicom.identity import identity
from implantforge.stages.dicom.reading import load, survey
from implantforge.stages.dicom.report import Scan, SeriesReport
from implantforge.stages.dicom.rules import RULES, Rule
from implantforge.stages.dicom.segmentation import read_segmentation
from implantforge.stages.dicom.segmentwriting import write_segmentation

__all__ = [
    "RULES",
    "Rule",
    "Scan",
    "SeriesReport",
    "identity",
    "load",
    "read_segmentation",
    "survey",
    "write_segmentation",
]
