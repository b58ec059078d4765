"""survey() says what is there; load() gives the one series that may be used."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from implantforge.core import InputError
from implantforge.geom import grids
from implantforge.stages.dicom import (
    agreement,
    decoding,
    geometry,
    grouping,
    headers,
    judging,
    pixels,
    sources,
    volumes,
)
from implantforge.stages.dicom.headers import Frame
from implantforge.stages.dicom.judging import Judged
from implantforge.stages.dicom.report import Scan, SeriesReport
from implantforge.stages.dicom.rules import RULES, Finding, Use, hit, texts, use, verdict

_KERNEL_RANK = {"bone": 0, "standard": 1, "unknown": 1, "edge": 2, "soft": 3}


def survey(path: str | Path, today: date | None = None) -> tuple[SeriesReport, ...]:
    """Every series found, the one load() takes marked `proposed`; InputError only when nothing is readable.

    today: judge the age of the scan too, against that day, told in bands of months.
    """
    path = Path(path)
    if _is_array_file(path):
        file = volumes.judge(path)
        return (_closed(file.report, volumes.look_at(file), None) if file.readable else file.report,)
    with headers.quiet(), sources.opened(path) as (members, notes):
        judged = _judged(members, notes)
        if today is not None:
            judged = [replace(it, findings=(*it.findings, *agreement.age(it.group, today))) for it in judged]
        best = _best(judged)
        reports = [_report(n, it, n == best) for n, it in enumerate(judged)]
        reports[best] = _seen(judged[best], reports[best])
        return tuple(reports)


def load(path: str | Path, *, series: str | None = None, accept: str | None = None) -> Scan:
    """The best bone series (or the one whose uid_hash starts with `series`, or of that index) as a Scan.

    A refused series raises InputError with every reason, unless `accept` gives a person's reason to use it; where the
    voxels lie or whose they are can never be accepted. hu is C-contiguous int16 [i,j,k], index axes near +L, +P, +S.
    """
    path = Path(path)
    if _is_array_file(path):
        file = volumes.judge(path)
        _allowed(file.report, accept, file.acceptable)
        volume, more = volumes.volume(file)
        return Scan(volume, _concluded(file.report, more, 0, accept))
    with headers.quiet(), sources.opened(path) as (members, notes):
        judged = _judged(members, notes)
        chosen = _chosen(judged, series)
        it = judged[chosen]
        report = _report(chosen, it, chosen == _best(judged))
        _allowed(report, accept, all(f.rule.acceptable for f in it.findings) and it.stack is not None)
        assert it.stack is not None
        look = pixels.looker(it.stack)
        volume, padded = pixels.volume(it.stack, it.group.uid_hash, look)
    return Scan(volume, _concluded(report, look.findings(), padded, accept))


def _seen(it: Judged, report: SeriesReport) -> SeriesReport:
    """The report of the proposed series as load() would give it: every slice is decoded, none is kept."""
    if it.stack is None or any(not f.rule.acceptable for f in it.findings):
        return report
    try:
        look, padded = pixels.look_at(it.stack)
    except InputError as error:
        return _closed(report, [hit("undecodable", str(error).removeprefix("CT: "))], None)
    return _closed(report, [*look.findings(), *_padding(padded)], None)


def _concluded(report: SeriesReport, more: list[Finding], padded: int, accept: str | None) -> SeriesReport:
    """The report with what all pixels showed; InputError when that refuses the series."""
    closed = _closed(report, [*more, *_padding(padded)], accept)
    _allowed(closed, accept, all(f.rule.acceptable for f in more))
    return closed


def _padding(padded: int) -> list[Finding]:
    return [hit("padding", f"{padded} voxels of padding or below -1024 HU set to -1024")] if padded else []


def _closed(report: SeriesReport, more: list[Finding], accept: str | None) -> SeriesReport:
    """The report with what the whole volume added, and the reason for which a person took a refused series."""
    reasons, rules, notes = texts(more)
    order = ("accepted", "flagged", "refused")
    worst = max(report.verdict, verdict(more), key=order.index)
    because = accept.strip() if accept and worst == "refused" else None
    both = sorted(
        [*zip(report.reasons, report.rules), *zip(reasons, rules)], key=lambda r: RULES[r[1]].act != "refused"
    )
    reasons = (*(text for text, _ in both), *((f"accepted by a person: {because}",) if because else ()))
    rules = tuple(name for _, name in both)
    good: Use = "none" if worst == "refused" else "planning" if any(RULES[n].planning for n in rules) else "implant"
    return replace(report, use=good, verdict=worst, reasons=reasons, rules=rules, notes=(*report.notes, *notes),
                   accepted_because=because)  # fmt: skip


def _allowed(report: SeriesReport, accept: str | None, acceptable: bool) -> None:
    if report.verdict != "refused":
        return
    why = "; ".join(report.reasons)
    if not acceptable:
        raise InputError(f"CT refused: {why}")
    if not (accept and accept.strip()):
        raise InputError(f"CT refused: {why} (a person may accept it with a reason)")


def _is_array_file(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(sources.ARRAY_FILES)


def _judged(members: list[sources.Member], notes: list[Finding]) -> list[Judged]:
    frames: list[Frame] = []
    damaged, other = [], 0
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
        packed = sum(member.size > 4 and member.read(4) == b"PK\x03\x04" for member in members[:100])
        if packed:
            raise InputError(f"CT: no DICOM image among {len(members)} files, but zips within: unpack them first")
        raise InputError(
            f"CT: no DICOM image among {len(members)} files{reason}: give the folder that holds the series"
        )
    common = [*_people(images), *notes]
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
        return _best(judged)
    # a short number is an index, never the beginning of a hash
    matches = [n for n, j in enumerate(judged) if len(series) >= 6 and j.group.uid_hash.startswith(series)]
    if series.isdigit() and int(series) < len(judged) and len(series) < 6:
        return int(series)
    if len(matches) != 1:
        raise InputError(
            f"CT: {len(matches)} of {len(judged)} series match {series!r}: give the index or hash shown by inspect"
        )
    return matches[0]


def _best(judged: list[Judged]) -> int:
    """Usable first, then fit-grade slices, then a bone kernel that is not edge-enhancing, then thinness, coverage."""

    def key(n: int) -> tuple[Any, ...]:
        it = judged[n]
        hard = sum(not f.rule.acceptable for f in it.findings)
        if it.stack is None:
            return (2, hard, 0, 0, 0.0, -len(it.group.frames), n)
        frame, spacing = it.stack.frames[0], float(it.stack.spacing_mm[2])
        step = max(spacing, frame.thickness_mm or 0.0)
        grade = 0 if step <= RULES["slice_spacing"].threshold * 1.001 else 1
        refused = int(verdict(it.findings) == "refused")
        kernel = _KERNEL_RANK[judging.kernel_class(frame.kernel)]
        return (refused, hard, grade, kernel, round(step, 2), -float(it.stack.along_mm[-1]), n)

    return min(range(len(judged)), key=key)


def _report(index: int, it: Judged, proposed: bool) -> SeriesReport:
    frame = it.group.frames[0]
    shape, spacing, orientation, tilt = (
        (frame.columns, frame.rows, len(it.group.frames)),
        (0.0, 0.0, 0.0),
        "unknown",
        0.0,
    )
    reasons, rules, notes = texts(it.findings)
    if it.stack is not None:
        _, grow = pixels.sheared(it.stack)
        columns, rows, slices = it.stack.shape
        raw = (columns + int(grow[0]), rows + int(grow[1]), slices)
        grid = grids.canonical(it.stack.axes, it.stack.spacing_mm, it.stack.origin_mm, raw)
        shape, spacing = grid.shape, tuple(round(float(v), 6) for v in grid.spacing_mm)  # type: ignore[assignment]
        orientation, tilt = geometry.orientation_name(it.stack.axes), round(it.stack.tilt_deg, 3)
    if proposed and it.stack is not None and verdict(it.findings) != "refused":
        step = float(it.stack.spacing_mm[2])
        kind = judging.kernel_class(frame.kernel)
        notes += (f"proposed: slices {step:.2f} mm apart, {kind} kernel, {it.stack.along_mm[-1] + step:.0f} mm long",)
    names = sorted({decoding.syntax_name(f.syntax) for f in it.group.frames})
    return SeriesReport(
        index=index, uid_hash=it.group.uid_hash, modality=frame.modality or "unknown", shape=shape, spacing_mm=spacing,
        orientation=orientation, tilt_deg=tilt, thickness_mm=frame.thickness_mm, transfer_syntax=", ".join(names),
        kernel=", ".join(sorted(Counter(f.kernel for f in it.group.frames))), verdict=verdict(it.findings),
        reasons=reasons, rules=rules, notes=notes,
        images=len(it.group.frames), proposed=proposed, use=use(it.findings),
    )  # fmt: skip
