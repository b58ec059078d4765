"""JSON of a run turned into rows that the page prints. Nothing here raises for a missing key."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from implantforge.pipeline.runfolder import RunFolder
from implantforge.report.words import label, number, split_unit, ukrainian, unit_of

Row = dict[str, Any]


def rows_of(value: Any) -> list[dict[str, Any]]:
    """The mappings in a list; anything else is left out."""
    return [dict(v) for v in value if isinstance(v, Mapping)] if isinstance(value, list | tuple) else []


def metrics(run: RunFolder) -> dict[str, Any]:
    """Numbers of the fit, then of the manifest (which win)."""
    return {**_mapping(run.fit.get("metrics")), **_mapping(run.manifest.get("metrics"))}


def pick(values: Mapping[str, Any], *patterns: str) -> tuple[str, float] | None:
    """The first (name, number) whose name matches a pattern, in order of patterns."""
    for pattern in patterns:
        for name, value in values.items():
            if re.search(pattern, name) and isinstance(value, int | float) and not isinstance(value, bool):
                return name, float(value)
    return None


def checks(run: RunFolder) -> list[Row]:
    """Checks with a state of 'fail', 'flag' or 'pass', failures first."""
    out = []
    for item in rows_of(run.manifest.get("checks")):
        state = "pass" if item.get("passed") else "flag" if item.get("severity") == "flag" else "fail"
        unit = unit_of(item.get("unit") or "")
        sense = {"<=": "≤ ", ">=": "≥ "}.get(str(item.get("sense")), "")
        place = item.get("at_mm")
        out.append({
            "name": label(item.get("name", "?")), "state": state, "value": number(item.get("value"), unit),
            "limit": sense + number(item.get("limit"), unit), "source": item.get("source") or "no source given",
            "at": at_text(place) if place else "", "assumptions": ", ".join(map(str, item.get("assumptions") or ())),
        })  # fmt: skip
    return sorted(out, key=lambda r: ("fail", "flag", "pass").index(r["state"]))


def verdict(run: RunFolder, rows: list[Row]) -> tuple[str, str, str]:
    """(class, English, Ukrainian) of the whole run."""
    failed, flagged = (sum(r["state"] == s for r in rows) for s in ("fail", "flag"))
    if failed or run.manifest.get("status") == "check_failed":
        n = failed or 1
        return "fail", f"{n} check{'s' * (n > 1)} FAILED: not for manufacture as it is", f"НЕ пройдено перевірок: {n}"
    if run.manifest.get("status") == "planned":
        return "flag", "planned: there is no part yet", "лише план: виробу ще немає"
    if not run.manifest:
        return "flag", "unfinished: this run has no manifest", "незавершено: немає маніфесту"
    if not rows:
        return "flag", "nothing was checked", "перевірок не було"
    tail = f", {flagged} flagged for attention" if flagged else ""
    tail_uk = f", зверніть увагу: {flagged}" if flagged else ""
    passed = len(rows) - flagged
    return "pass", f"all {passed} checks passed{tail}", f"усі перевірки пройдено ({passed}){tail_uk}"


def summary(run: RunFolder) -> list[str]:
    """The paragraph on top, one sentence per item, from whatever numbers there are."""
    m = metrics(run)
    out = []
    size = m.get("size", _mapping(run.fit.get("params")).get("size"))
    if size is not None:
        out.append(f"Size {number(size)}." if not isinstance(size, str) else f"Size {size}.")
    plan = _mapping(run.fit.get("params"))
    out += [str(line) for line in plan.get("told") or ()]
    head = pick(m, r"head_cent(re|er)_(error|residual|shift).*mm$", r"head.*(error|residual|shift|distance).*mm$")
    if head:
        out.append(f"The centre of the head is restored to within {max(abs(head[1]), 0.1):.1f} mm.")
    changes = [
        ("leg length", pick(m, r"leg_length.*mm$")),
        ("offset", pick(m, r"offset_(change|error|delta).*mm$", r"delta_offset")),
    ]
    told = [f"{what} changes by {found[1]:+.1f} mm".replace("-", "−") for what, found in changes if found]
    if told and not plan.get("told"):
        out.append(
            f"{' and '.join(told)}.".replace("leg", "Leg", 1)
            if told[0].startswith("leg")
            else f"{' and '.join(told)}.".replace("offset", "Offset", 1)
        )
    fill = pick(m, r"fill_mid.*pct$", r"canal_fill.*pct$", r"fill.*pct$")
    if fill:
        out.append(f"The stem fills {fill[1]:.0f} % of the canal{' at its middle' if 'mid' in fill[0] else ''}.")
    gap = [
        (t, pick(m, p))
        for t, p in (("mean {:.2f} mm", r"gap_mean_mm$"), ("{:.2f} mm or less on 95 % of the surface", r"gap_p95_mm$"))
    ]
    told = [t.format(found[1]) for t, found in gap if found]
    if told:
        out.append(f"Gap to {'the cut bone' if plan.get('cuts') else 'cortex'}: {', '.join(told)}.")
    contact = pick(m, r"contact_pct$")
    if contact:
        out.append(f"{contact[1]:.0f} % of the surface is counted as contact.")
    mass, saving = pick(m, r"^part_mass_g$"), pick(m, r"^mass_saving_pct$")
    if mass:
        lighter = f", {saving[1]:.0f} % lighter than the same outer shape made solid" if saving else ""
        out.append(f"The part weighs {mass[1]:.0f} g{lighter}.")
    porosity, pore = pick(m, r"lattice_porosity_pct$"), pick(m, r"pore_size_um$")
    if porosity:
        out.append(f"Its coat is {porosity[1]:.0f} % porous{f', pores {pore[1]:.0f} µm' if pore else ''}.")
    return out


def metric_rows(run: RunFolder) -> list[Row]:
    """Every number, named and with its unit."""
    rows = []
    found = metrics(run)
    for name, value in found.items():
        if name == "min_wall_mm" and "lattice_wall_um" in found:  # the same number
            continue
        if isinstance(value, int | float | str):
            unit = split_unit(name)[1]
            rows.append({"name": label(name), "uk": ukrainian(name), "value": number(value, unit)})
    return rows


def waste(run: RunFolder) -> list[str]:
    """What the waste and mass numbers mean, said next to them."""
    names = metrics(run)
    out = []
    if "mass_saving_pct" in names:
        out.append("Mass saving is measured against the same outer shape made solid, not against another product.")
    if any(re.search(r"waste|loss|buy_to_fly", n) for n in names):
        out.append(
            "Powder loss counts only powder that cannot be used again; total additive waste adds supports and "
            "machining stock. Unused powder is assumed fully reused. Milling is compared for the solid outer shape: "
            "a porous part cannot be milled."
        )
    return out


def walls(run: RunFolder) -> str:
    """Which of the walls is which, where several are told; else empty."""
    names = metrics(run)
    if "lattice_wall_um" not in names or "lattice_wall_median_um" not in names:
        return ""
    return (
        "Walls of the lattice: the one held to the machine's least is the narrowest neck of a network or the median of a "
        "sheet; median and thinnest 1 % are local thicknesses of its metal away from the coat's borders, on the finished "
        "mesh where the coat is fullest; designed is the same as the first, before it was meshed. The porous section below "
        "reads the part as sliced, borders included, and so finds other figures."
    )


def alternatives(run: RunFolder) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of the ranked alternatives, best first; 'why' goes last."""
    items = rows_of(run.fit.get("alternatives"))
    columns = [
        k for k in dict.fromkeys(k for item in items for k in item) if k not in ("why", "rank") and _flat(items, k)
    ]
    heads = ["#"] + [f"{label(c)}{', ' + split_unit(c)[1] if split_unit(c)[1] else ''}" for c in columns]
    if any("why" in item for item in items):
        heads.append("Why / чому")
    body = []
    for rank, item in enumerate(items, 1):
        row = [str(rank)] + [_cell(item.get(c)) for c in columns]
        body.append(row + ([str(item.get("why", ""))] if heads[-1].startswith("Why") else []))
    return heads, body


def anatomy(run: RunFolder) -> list[Row]:
    """Per bone: measures, landmarks and what was refused."""
    out = []
    for bone, data in run.anatomy.items():
        if not isinstance(data, Mapping):
            continue
        measures = [{"name": label(k), "uk": ukrainian(k), "value": number(v, split_unit(k)[1])}
                    for k, v in _mapping(data.get("measures")).items()]  # fmt: skip
        marks = [
            {
                "name": label(k),
                "uk": ukrainian(k),
                "at": at_text(v.get("at_mm")),
                "sigma": number(v.get("sigma_mm"), "mm"),
                "method": str(v.get("method", "")).replace("_", " "),
                "hand": "by hand" in str(v.get("method", "")),
            }
            for k, v in _mapping(data.get("landmarks")).items()
            if isinstance(v, Mapping)
        ]
        refused = [
            {"name": label(k), "uk": ukrainian(k), "why": str(v)} for k, v in _mapping(data.get("refused")).items()
        ]
        out.append(
            {"bone": label(bone), "uk": ukrainian(bone), "measures": measures, "marks": marks, "refused": refused}
        )
    return out


def surfaces(run: RunFolder) -> list[Row]:
    """Per bone: what is known of its surface's precision, and what metal does to it."""
    spoilt = _mapping(run.manifest.get("artefacts"))
    out = []
    for bone, row in _mapping(run.manifest.get("bones")).items():
        metal = _mapping(spoilt.get(bone))
        blur = [number(b, "mm") for b in row.get("blur_mm") or ()]
        unseen = row.get("no_edge_share")
        out.append(
            {
                "name": label(bone),
                "uk": ukrainian(bone),
                "median": number(row.get("sigma_median_mm"), "mm"),
                "p95": number(row.get("sigma_p95_mm"), "mm"),
                "unseen": "" if unseen is None else f"{100 * unseen:.1f} %",
                "blur": " × ".join(blur),
                "noise": number(row.get("noise_hu"), ""),
                "metal": number(metal.get("nearest_mm"), "mm") if metal else "none",
                "artefact": number(metal.get("index_hu"), "") if metal else "none",
            }
        )
    return out


def assumptions(run: RunFolder) -> list[Row]:
    """Values that were not measured on the patient, with the tag of what they stand on."""
    return [
        {"name": _dotted(a.get("name", "?")), "value": number(a.get("value"), unit_of(a.get("unit") or "")),
         "tag": str(a.get("tag") or "P").strip("[]"), "source": a.get("source") or "no source given"}
        for a in rows_of(run.manifest.get("assumptions"))
    ]  # fmt: skip


def machined(run: RunFolder) -> dict[str, list[Row]]:
    """Surfaces with their datums: `finish` by a shop after printing, `printed` as they are (axes, faces and holes without
    stock), `cut` in the bone. Points to 1 um, directions to five figures."""
    out: dict[str, list[Row]] = {"finish": [], "printed": [], "cut": []}
    for item in rows_of(run.manifest.get("machined")):
        kind, stock = str(item.get("kind", "")), [v for k, v in item.items() if k.startswith("stock_")]
        bare = kind.startswith("datum") or kind == "hole" or (bool(stock) and not any(stock))
        told = {k: v for k, v in item.items() if k not in ("name", "kind", "part", "frame")
                and not (k.startswith("stock_") and not v)}  # fmt: skip
        facts = [
            f"{label(k)} {_exact(v, split_unit(k)[1])}" for k, v in told.items() if isinstance(v, int | float | str)
        ]
        facts += [f"{label(k)} {_signed(v, 5 if k in _WAYS else 3)}" for k, v in told.items() if _is_point(v)]
        name = label(item.get("name") or kind or "surface")
        row = {"name": f"{label(item['part'])}: {name}" if item.get("part") else name, "facts": facts}
        out["cut" if kind == "cut plane" else "printed" if bare else "finish"].append(row)
    return out


def _exact(value: Any, unit: str) -> str:
    """Lengths and angles to three decimals, what a shop measures; others as `number`."""
    fine = isinstance(value, float) and unit in ("mm", "°")
    return f"{value:.3f}{'' if unit == '°' else ' '}{unit}".replace("-", "−") if fine else number(value, unit)


_WAYS = ("axis", "normal", "direction")


def _signed(point: Any, digits: int) -> str:
    """'(-0.57312, 0.17755, 0.80001)': L, P, S with their signs, as a measuring machine takes them."""
    return f"({', '.join(f'{x:.{digits}f}' for x in point)})".replace("-", "−")


def files(run: RunFolder) -> list[Row]:
    """Files of the run with hashes: from the manifest, or counted here."""
    listed = rows_of(run.manifest.get("files"))
    if not listed:
        skip = {"report.html", "manifest.json"}
        found = sorted(p for p in run.path.rglob("*") if p.is_file() and p.name not in skip)
        listed = [{"path": p.relative_to(run.path).as_posix(), "bytes": p.stat().st_size, "sha256": _sha256(p)}
                  for p in found if p.relative_to(run.path).parts[0] != "cache"]  # fmt: skip
    return [{"path": f.get("path"), "size": _size(f.get("bytes")), "sha256": f.get("sha256")} for f in listed
            if f.get("path") != "report.html"]  # fmt: skip


def inputs(run: RunFolder) -> list[str]:
    """Hashes of the inputs. Their names stay out: a folder is often called after the patient."""
    return [str(i["sha256"]) for i in rows_of(run.manifest.get("inputs")) if i.get("sha256")]


def versions(run: RunFolder) -> list[tuple[str, str]]:
    """Programs and versions the manifest names."""
    found = [("ImplantForge", str(run.manifest["implantforge"]))] if run.manifest.get("implantforge") else []
    return found + [(str(k), str(v)) for k, v in _mapping(run.manifest.get("versions")).items()]


def gap_limit(run: RunFolder) -> float | None:
    """The limit in mm of the check on gaps, when there is one."""
    for item in rows_of(run.manifest.get("checks")):
        name = str(item.get("name"))
        # the gaps of a joint are none between implant and bone
        if (
            "gap" in name
            and not re.search("difference|imbalance|stack", name)
            and item.get("unit") == "mm"
            and isinstance(item.get("limit"), int | float)
        ):
            return float(item["limit"])
    return None


def _dotted(name: Any) -> str:
    """'Neck diameter (params)' from 'params.neck_diameter_mm'."""
    group, _, last = str(name).rpartition(".")
    return f"{label(last)} ({group})" if group else label(last)


def at_text(point: Any) -> str:
    """'L 52.0  P 5.0  S 736.0' from LPS mm."""
    if not _is_point(point):
        return "—"
    return "  ".join(f"{'LPS'[i] if x >= 0 else 'RAI'[i]} {abs(x):.1f}" for i, x in enumerate(point))


def _is_point(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 3 and all(isinstance(x, int | float) for x in value)


def _flat(items: Iterable[Mapping[str, Any]], key: str) -> bool:
    return all(isinstance(i.get(key), int | float | str | None) or _few(i.get(key)) for i in items)


def _few(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) <= 4 and all(isinstance(x, int | float | str) for x in value)


def _cell(value: Any) -> str:
    return " / ".join(map(number, value)) if _few(value) else number(value)


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _size(count: Any) -> str:
    if not isinstance(count, int | float):
        return "—"
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def _sha256(path: Any) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
