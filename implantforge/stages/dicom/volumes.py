"""NIfTI and NRRD as CT: no slices to check and no identity, so flagged at best; geometry and HU are judged as ever."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Grid, InputError, Volume
from implantforge.geom import grids, imagefile
from implantforge.stages.dicom import hounsfield, judging, sources
from implantforge.stages.dicom.looking import Look
from implantforge.stages.dicom.report import SeriesReport
from implantforge.stages.dicom.rules import FLOOR_HU, RULES, Finding, hit, texts, use, verdict

BLOCK = 32
SAMPLE_SLICES = 9


@dataclass(frozen=True)
class Judged:
    """A file's report, whether a refusal may be accepted, and what is needed to read the voxels."""

    report: SeriesReport
    acceptable: bool
    image: imagefile.RawImage
    axes: NDArray
    grid: Grid | None
    spacing_mm: tuple[float, float, float] | None = None

    @property
    def readable(self) -> bool:
        """Whether the voxels have a place and none of the findings forbids to read them."""
        return self.grid is not None and self.acceptable


def judge(path: Path) -> Judged:
    """The report of one file; InputError when it is no readable image at all."""
    if path.stat().st_size > sources.MAX_MEMBER_BYTES:
        raise InputError(
            f"CT: the file has {path.stat().st_size / 1e9:.1f} GB, limit {sources.MAX_MEMBER_BYTES / 1e9:.1f} GB"
        )
    image = imagefile.read(path)
    kind = "NRRD" if path.name.lower().endswith("nrrd") else "NIfTI"
    findings = [hit("not_dicom_source", f"{kind}: no patient, kernel or scanner tags came with it")]
    axes, grid, spacing = np.eye(3), None, None
    if image.affine is None:
        findings.append(
            hit("no_geometry", f"{kind}: no position and orientation in space: where the voxels lie is not known")
        )
    else:
        found = grids.from_affine(image.affine, RULES["sheared_affine"].threshold)
        if isinstance(found, str):
            findings.append(hit("sheared_affine" if "shear" in found else "bad_spacing", f"{kind}: {found}"))
        else:
            axes, spacing = found[0], (float(found[1][0]), float(found[1][1]), float(found[1][2]))
            grid = grids.canonical(axes, found[1], image.affine[:3, 3], image.shape)
            findings += _size(grid)
            findings += _numbers(image)
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 22):
            digest.update(chunk)
    report = _report(kind, digest.hexdigest(), image, axes, grid, findings)
    return Judged(report, all(f.rule.acceptable for f in findings), image, axes, grid, spacing)


def volume(judged: Judged) -> tuple[Volume, list[Finding]]:
    """HU int16 on the canonical grid, and what only the whole volume shows."""
    assert judged.grid is not None
    hu = np.empty(judged.grid.shape, np.int16)
    raw = grids.raw_view(hu, judged.axes)
    return Volume(judged.grid, hu, judged.report.uid_hash), _through(judged, raw)


def look_at(judged: Judged) -> list[Finding]:
    """What volume() would find, without holding a volume."""
    try:
        return _through(judged, None)
    except InputError as error:
        return [hit("undecodable", str(error).removeprefix("CT: "))]


def _through(judged: Judged, raw: NDArray | None) -> list[Finding]:
    """Every slice of the file past a Look, and into `raw` (a volume in the file's order) when there is one."""
    image, padded = judged.image, 0
    assert judged.spacing_mm is not None
    look = Look(judged.spacing_mm, None, ordered=False,
                sides=(abs(judged.axes[0][2]) < 0.7, abs(judged.axes[1][2]) < 0.7))  # fmt: skip
    for k in range(0, image.shape[2], BLOCK):
        block = _block(image, k, k + BLOCK)
        below = ~(block >= FLOOR_HU)
        padded += int(np.count_nonzero(below))
        block[below] = FLOOR_HU
        hu = np.rint(np.minimum(block, 32767)).astype(np.int16)
        if raw is not None:
            raw[:, :, k : k + BLOCK] = hu
        for n in range(hu.shape[2]):
            look.add(hu[:, :, n].T)
    found = look.findings()
    if padded:
        found.append(hit("padding", f"{padded} voxels of padding or below -1024 HU set to -1024"))
    return found


def _block(image: imagefile.RawImage, start: int, stop: int) -> NDArray[np.float32]:
    shape = (*image.shape[:2], min(stop, image.shape[2]) - start)
    try:
        values = np.asarray(image.values[:, :, start:stop])
    except Exception as error:
        raise InputError(f"CT: slices {start + 1}-{stop} of the file cannot be read ({type(error).__name__}): "
                         "cut off or damaged") from None  # fmt: skip
    return values.reshape(shape).astype(np.float32)


def _size(grid: Grid) -> list[Finding]:
    out, extent = [], grid.spacing_mm * grid.shape
    if extent.max() < RULES["crop_min"].threshold:
        out.append(hit("crop_min", f"the volume is {extent.max():.3f} mm large: are lengths in mm?"))
    if extent.max() > RULES["length_max"].threshold:
        out.append(hit("length_max", f"the volume is {extent.max():.0f} mm long: are lengths in mm?"))
    if min(grid.shape) < RULES["few_slices"].threshold:
        out.append(hit("few_slices", f"{min(grid.shape)} slices: fewer than {RULES['few_slices'].threshold:.0f}"))
    x, y, z = (float(s) for s in grid.spacing_mm)
    return out + judging.resolution(x, y, z)


def _numbers(image: imagefile.RawImage) -> list[Finding]:
    """HU sanity on slices spread evenly; in file order, so that a packed file is unpacked once only."""
    picks = np.unique(np.linspace(0, image.shape[2] - 1, min(SAMPLE_SLICES, image.shape[2])).round().astype(int))
    values = np.concatenate([_block(image, int(k), int(k) + 1) for k in picks], axis=2)
    return hounsfield.judge(values, ~(values >= -1100))


def _report(
    kind: str, digest: str, image: imagefile.RawImage, axes: NDArray, grid: Grid | None, findings: list[Finding]
) -> SeriesReport:
    from implantforge.stages.dicom.geometry import orientation_name

    reasons, rules, notes = texts(findings)
    return SeriesReport(
        index=0, uid_hash=digest, modality="CT assumed", shape=image.shape if grid is None else grid.shape,
        spacing_mm=(0.0, 0.0, 0.0) if grid is None else tuple(round(float(s), 6) for s in grid.spacing_mm),  # type: ignore[arg-type]
        orientation="unknown" if grid is None else orientation_name(axes), tilt_deg=0.0, thickness_mm=None,
        transfer_syntax=kind, kernel="unknown", verdict=verdict(findings), reasons=reasons, rules=rules,
        notes=(*notes, *image.notes), images=1, proposed=verdict(findings) != "refused",
        use=use(findings),
    )  # fmt: skip
