"""The certificate of the porous structure as the page prints it: numbers with their errors, histograms, how far spheres come
in from outside, and Young's modulus by direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from implantforge.core import Array
from implantforge.report.words import label, number, split_unit

# name in the certificate, English, Ukrainian
_ROWS = (
    ("porosity_pct", "Porosity", "пористість"),
    ("pore_median_um", "Pore, median local thickness", "пора, медіана"),
    ("pore_largest_um", "Largest pore", "найбільша пора"),
    ("throat_um", "Throat", "горло"),
    ("wall_median_um", "Wall, median local thickness", "стінка, медіана"),
    ("wall_p01_um", "Wall, thinnest 1 %", "стінка, найтонший 1 %"),
    ("open_void_pct", "Void open to outside", "пори, відкриті назовні"),
    ("open_to_300_um_pct", "Void reached by a sphere of 300 µm", "досяжно для кулі 300 мкм"),
    ("modulus_x_gpa", "Young's modulus along a cell edge", "модуль уздовж ребра комірки"),
    ("modulus_min_gpa", "Softest direction", "найм'якший напрям"),
    ("modulus_max_gpa", "Stiffest direction", "найжорсткіший напрям"),
    ("zener_ratio", "Zener ratio", "коефіцієнт Зенера"),
    ("specific_surface_per_mm", "Surface by volume", "питома поверхня"),
    ("permeability_1e9_m2", "Permeability, 1e-9 m²", "проникність, 1e-9 м²"),
)
_UNITS = {"gpa": "GPa", "pct": "%", "um": "µm"}
_SLOTS = (46, 22, 14, 46, 380, 220)  # left, right, top, foot, width, height


def content(page: Mapping[str, Any] | None) -> dict[str, Any]:
    """rows, charts (SVG text) and notes of a certificate; empty with `why` when there is none."""
    page = page or {}
    values = page.get("values") or {}
    if not values:
        return {
            "rows": [],
            "charts": [],
            "coating": [],
            "why": str(page.get("refused") or "no certificate in this run"),
        }
    errors, curves = page.get("errors") or {}, page.get("curves") or {}
    rows = []
    for name, text, uk in _ROWS:
        if name in values:
            unit = _unit(name)
            told = number(float(values[name]), unit)
            error = errors.get(name)
            rows.append(
                {"name": text, "uk": uk, "value": told, "error": f"± {number(float(error), unit)}" if error else ""}
            )
    charts = [
        _histogram(curves.get("wall_um"), "Wall, µm", "стінка, мкм", "#7d8794"),
        _histogram(curves.get("pore_um"), "Pore, µm", "пора, мкм", "#3f8fb0", (300.0, 800.0)),
        _open(curves.get("open")),
        _modulus(curves.get("modulus")),
    ]
    coating = [f"{label(name)}: {text}" for name, text in (page.get("coating") or {}).items()]
    return {
        "rows": rows,
        "charts": [c for c in charts if c],
        "coating": coating,
        "why": "",
        "sampled": page.get("sampled"),
    }


def _unit(name: str) -> str:
    if name.endswith(("_per_mm", "_ratio", "_m2")):
        return "mm⁻¹" if name.endswith("_per_mm") else ""
    return _UNITS.get(name.rsplit("_", 1)[-1]) or split_unit(name)[1]


def _frame(title: str, uk: str, ticks_x: Sequence[float], ticks_y: Sequence[float], x: Any, y: Any) -> list[str]:
    """Grid, ticks and title of a chart."""
    left, right, _, foot, width, height = _SLOTS
    out = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{title}" style="max-width:{width}px">']
    for tick in ticks_y:
        out.append(f'<line x1="{left}" x2="{width - right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" class="grid"/>')
        out.append(f'<text x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g} %</text>')
    for tick in ticks_x:
        out.append(f'<text x="{x(tick):.1f}" y="{height - foot + 18}" text-anchor="middle">{tick:g}</text>')
    out.append(f'<text x="{(left + width - right) / 2}" y="{height - 8}" text-anchor="middle">{title} · {uk}</text>')
    return out


def _axes(low: float, high: float, most: float) -> tuple[Any, Any]:
    left, right, top, foot, width, height = _SLOTS
    return (lambda v: left + (v - low) / (high - low) * (width - left - right),
            lambda pct: height - foot - pct / most * (height - foot - top))  # fmt: skip


def _ticks(low: float, high: float, about: int = 5) -> list[float]:
    raw = (high - low) / about
    size = 10 ** np.floor(np.log10(raw))
    step = float(next(s for s in (size, 2 * size, 5 * size, 10 * size) if s >= raw))
    return [float(t) for t in np.arange(np.ceil(low / step) * step, high + 1e-9, step)]


def _histogram(
    curve: Mapping[str, Any] | None, title: str, uk: str, ink: str, window: tuple[float, float] | None = None
) -> str:
    """Share of the volume by local thickness; the window of ingrowth shaded."""
    if not curve:
        return ""
    edges, share = np.array(curve["edges"], float), np.array(curve["share_pct"], float)
    high = max(edges[-1], window[1] * 1.05 if window else 0.0)
    most = max(float(share.max()) * 1.1, 1.0)
    x, y = _axes(0.0, high, most)
    out = _frame(title, uk, _ticks(0.0, high), _ticks(0.0, most, 4), x, y)
    if window:
        a, b = x(window[0]), x(window[1])
        out.append(f'<rect x="{a:.1f}" y="{y(most):.1f}" width="{b - a:.1f}" height="{y(0) - y(most):.1f}" '
                   'fill="#5aa469" opacity="0.13"/>')  # fmt: skip
    for a, b, pct in zip(edges[:-1], edges[1:], share):
        if pct > 0:
            out.append(f'<rect x="{x(a):.1f}" y="{y(pct):.1f}" width="{max(x(b) - x(a) - 0.8, 0.8):.1f}" '
                       f'height="{y(0) - y(pct):.1f}" fill="{ink}" class="bar"/>')  # fmt: skip
    return "\n".join([*out, "</svg>"])


def _open(curve: Mapping[str, Any] | None) -> str:
    """Share of the void that a sphere from outside sweeps, by its diameter."""
    if not curve or len(curve["sphere_um"]) < 2:
        return ""
    um, share = curve["sphere_um"], curve["share_pct"]
    x, y = _axes(0.0, float(um[-1]), 105.0)
    out = _frame("Open to a sphere of, µm", "досяжно для кулі, мкм", um[::2], (0, 25, 50, 75, 100), x, y)
    path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(um, share))
    out.append(f'<polyline points="{path}" fill="none" stroke="#3f8fb0" stroke-width="2.5"/>')
    out += [f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="3.5" fill="#3f8fb0"/>' for a, b in zip(um, share)]
    return "\n".join([*out, "</svg>"])


def _modulus(curve: Mapping[str, Any] | None) -> str:
    """The surface whose distance from the middle is Young's modulus in that direction, shaded, stiff in red."""
    if not curve:
        return ""
    from scipy.spatial import ConvexHull

    way, gpa = np.array(curve["direction"], float), np.array(curve["gpa"], float)
    faces = ConvexHull(way).simplices
    turn, tilt = np.radians(30.0), np.radians(22.0)
    right = np.array([np.cos(turn), np.sin(turn), 0.0])
    toward = np.array([np.sin(turn) * np.cos(tilt), -np.cos(turn) * np.cos(tilt), np.sin(tilt)])
    up = np.cross(toward, right) * -1.0
    up = up if up[2] > 0 else -up
    size, middle = 88.0, np.array([108.0, 118.0])
    body = way * (gpa / gpa.max())[:, None]
    corners = body[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal *= np.sign((normal * corners.mean(axis=1)).sum(axis=1))[:, None]
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-12
    flat = np.stack([middle[0] + size * body @ right, middle[1] - size * body @ up], axis=1)
    light = 0.45 + 0.55 * np.clip(normal @ (0.8 * toward + 0.5 * up - 0.2 * right), 0, 1)
    low, high = float(gpa.min()), float(gpa.max())
    out = ['<svg viewBox="0 0 380 240" role="img" aria-label="Modulus by direction" style="max-width:380px">']
    for n in np.argsort((corners.mean(axis=1)) @ toward):
        if normal[n] @ toward > -0.05:
            part = (gpa[faces[n]].mean() - low) / max(high - low, 0.02 * high)
            ink = _shade(part, float(light[n]))
            points = " ".join(f"{a:.1f},{b:.1f}" for a, b in flat[faces[n]])
            out.append(f'<polygon points="{points}" fill="{ink}" stroke="{ink}" stroke-width="0.6"/>')
    for axis, name in enumerate("xyz"):
        end = np.array([right[axis], up[axis]]) * size * 1.08
        out.append(f'<text x="{middle[0] + end[0]:.1f}" y="{middle[1] - end[1] + 4:.1f}" class="strong">{name}</text>')
    told = (f"{number(high, 'GPa')} stiffest", "найжорсткіше", f"{number(low, 'GPa')} softest", "найм’якше")
    for n, line in enumerate(told):
        ink = "" if n % 2 else ' class="strong"'
        out.append(f'<text x="232" y="{60 + 20 * n + 8 * (n > 1)}"{ink}>{line}</text>')
    out.append('<text x="232" y="168">Distance from the</text><text x="232" y="184">middle: the modulus</text>')
    out.append('<text x="232" y="200">in that direction</text></svg>')
    return "\n".join(out)


def _shade(part: float, light: float) -> str:
    """From blue (0) over pale to red (1), darkened."""
    stops: Array = np.array([[70, 125, 190], [235, 230, 215], [200, 70, 55]], float)
    at = float(np.clip(part, 0, 1)) * 2
    n = min(int(at), 1)
    colour = (stops[n] + (at - n) * (stops[n + 1] - stops[n])) * light
    return "#" + "".join(f"{int(c):02x}" for c in colour)
