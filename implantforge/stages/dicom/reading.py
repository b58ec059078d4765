"""survey() says what is there; load() gives the one series that may be used."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from implantforge.core import InputError
from implantforge.stages.dicom import geometry, grouping, headers, hounsfield, judging, pixels, sources
from implantforge.stages.dicom.headers import Frame
from implantforge.stages.dicom.judging import Judged
from implantforge.stages.dicom.report import Scan, SeriesReport
from implantforge.stages.dicom.rules import Finding, hit, verdict

_RANK = {"accepted": 0, "flagged": 1, "refused": 2}
_KERNEL_RANK = {"bone": 0, "standard": 1, "unknown": 1, "edge": 2, "soft": 3}


def survey(path: str | Path) -> tuple[SeriesReport, ...]:
    """Every series found, best first is marked `proposed`; a bad series is a verdict. InputError: nothing readable there."""
    path = Path(path)
    if _is_array_file(path):
        from implantforge.stages.dicom import volumes

        return (volumes.read(path).report,)
    with sources.opened(path) as (members, notes):
        judged = _judged(members, notes)
        return tuple(_report(n, j, p) for n, (j, p) in enumerate(zip(judged, _proposed(judged))))


def load(path: str | Path, *, series: str | None = None, accept: str | None = None) -> Scan:
    """The best bone series (or the one whose uid_hash starts with `series`, or of that index) as a Scan.

    A refused series raises InputError with every reason, unless `accept` gives a person's reason to use it; where the
    voxels lie or whose they are can never be accepted. hu is C-contiguous int16 [i,j,k], index axes near +L, +P, +S.
    """
    path = Path(path)
    if _is_array_file(path):
        from implantforge.stages.dicom import volumes

        scan = volumes.read(path)
        _allowed(scan.report, accept, True)
        return replace(
            scan, report=replace(scan.report, accepted_because=accept if scan.report.verdict == "refused" else None)
        )
    with sources.opened(path) as (members, notes):
        judged = _judged(members, notes)
        chosen = _chosen(judged, series)
        report = _report(chosen, judged[chosen], _proposed(judged)[chosen])
        it = judged[chosen]
        _allowed(report, accept, all(f.rule.acceptable for f in it.findings) and it.stack is not None)
        assert it.stack is not None
        volume, padded = pixels.volume(it.stack, it.group.uid_hash)
    voxel = float(np.prod(volume.grid.spacing_mm))
    more = hounsfield.tops(volume.hu, voxel, _top_hu(it.stack.frames[0]))
    if padded:
        more.append(hit("padding", f"{padded} voxels of padding or below -1024 HU set to -1024"))
    report = _report(chosen, replace(it, findings=(*it.findings, *more)), report.proposed)
    return Scan(volume, replace(report, accepted_because=accept if report.verdict == "refused" else None))


def _allowed(report: SeriesReport, accept: str | None, acceptable: bool) -> None:
    if report.verdict != "refused":
        return
    why = "; ".join(report.reasons)
    if not acceptable:
        raise InputError(f"CT refused: {why}")
    if not (accept and accept.strip()):
        raise InputError(f"CT refused: {why} (a person may accept it with a reason)")


def _is_array_file(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(sources.NIFTI_NRRD)


def _judged(members: list[sources.Member], notes: list[str]) -> list[Judged]:
    frames, damaged, other = [], [], 0
    for member in members:
        try:
            found = headers.read(member)
        except InputError as error:
            damaged.append(str(error))
            continue
        if found is None:
            other += 1
        else:
            frames += found
    images = [f for f in frames if f.sop_class != "1.2.840.10008.1.3.10"]
    if not images:
        reason = f" ({damaged[0].removeprefix('CT: ')})" if damaged else ""
        raise InputError(
            f"CT: no DICOM image among {len(members)} files{reason}: give the folder that holds the series"
        )
    common = _people(images)
    if damaged:
        common.append(
            hit("damaged_files", f"{len(damaged)} damaged files left out, first: {damaged[0].removeprefix('CT: ')}")
        )
    judged = []
    for group in grouping.groups(images):
        it = judging.judge(group)
        judged.append(replace(it, findings=(*it.findings, *common)))
    return judged


def _people(frames: list[Frame]) -> list[Finding]:
    """Whoever is in one input must be one person; a blank field says nothing."""
    people = max(len({v for v in field if v}) for field in zip(*(f.identity for f in frames)))
    if people <= 1:
        return []
    return [hit("mixed_patients", f"files of {people} patients in one input: give one patient's scan alone")]


def _chosen(judged: list[Judged], series: str | None) -> int:
    if series is None:
        return _proposed(judged).index(True)
    matches = [n for n, j in enumerate(judged) if j.group.uid_hash.startswith(series) or str(n) == series]
    if series.isdigit() and int(series) < len(judged) and len(series) < 6:
        return int(series)
    if len(matches) != 1:
        raise InputError(
            f"CT: {len(matches)} of {len(judged)} series match {series!r}: give the index or hash shown by inspect"
        )
    return matches[0]


def _proposed(judged: list[Judged]) -> list[bool]:
    """One True: usable first, then thin slices, then a bone kernel that is not edge-enhancing, then coverage."""

    def key(n: int) -> tuple[Any, ...]:
        it = judged[n]
        if it.stack is None:
            return (3, 0, 0, 0, -len(it.group.frames), n)
        step = max(float(it.stack.spacing_mm[2]), it.stack.frames[0].thickness_mm or 0.0)
        length = float(it.stack.spacing_mm[2]) * len(it.stack.frames)
        kernel = _KERNEL_RANK[judging.kernel_class(it.stack.frames[0].kernel)]
        grade = 0 if step <= 1.251 else 1 if step <= 3.003 else 2
        return (int(verdict(it.findings) == "refused"), grade, kernel, round(step, 2), -length, n)

    best = min(range(len(judged)), key=key)
    return [n == best for n in range(len(judged))]


def _report(index: int, it: Judged, proposed: bool) -> SeriesReport:
    frame = it.group.frames[0]
    shape, spacing, orientation, tilt = (
        (frame.columns, frame.rows, len(it.group.frames)),
        (0.0, 0.0, 0.0),
        "unknown",
        0.0,
    )
    notes = [f.text for f in it.findings if f.rule.act == "note"]
    if it.stack is not None:
        low, grow = pixels.sheared(it.stack)
        columns, rows, slices = it.stack.shape
        raw = (columns + int(grow[0]), rows + int(grow[1]), slices)
        grid = geometry.canonical(it.stack.axes, it.stack.spacing_mm, it.stack.origin_mm, raw)
        shape, spacing = grid.shape, tuple(round(float(v), 6) for v in grid.spacing_mm)  # type: ignore[assignment]
        orientation, tilt = geometry.orientation_name(it.stack.axes), round(it.stack.tilt_deg, 3)
    if proposed and it.stack is not None:
        step = float(it.stack.spacing_mm[2])
        kind = judging.kernel_class(frame.kernel)
        notes.append(f"proposed: slices {step:.2f} mm apart, {kind} kernel, {step * len(it.stack.frames):.0f} mm long")
    ranked = sorted((f for f in it.findings if f.rule.act != "note"), key=lambda f: -_RANK[f.rule.act])
    names = sorted({pixels.syntax_name(f.syntax) for f in it.group.frames})
    return SeriesReport(
        index=index, uid_hash=it.group.uid_hash, modality=frame.modality or "unknown", shape=shape, spacing_mm=spacing,
        orientation=orientation, tilt_deg=tilt, thickness_mm=frame.thickness_mm, transfer_syntax=", ".join(names),
        kernel=", ".join(sorted(Counter(f.kernel for f in it.group.frames))), verdict=verdict(it.findings),
        reasons=tuple(f.text for f in ranked), rules=tuple(f.rule.name for f in ranked), notes=tuple(notes),
        images=len(it.group.frames), proposed=proposed,
    )  # fmt: skip


def _top_hu(frame: Frame) -> float | None:
    """HU of the largest storable value, None where the number range is too wide to saturate."""
    if not 0 < frame.bits_stored < 16:
        return None
    top = (1 << (frame.bits_stored - int(frame.signed))) - 1
    return top * (frame.slope or 1.0) + (frame.intercept or 0.0)
