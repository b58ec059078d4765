"""Charts as SVG text: sharp on paper, no script, the same bytes every time."""

from __future__ import annotations

from xml.sax.saxutils import escape

import numpy as np

from implantforge.core import Array
from implantforge.report.pictures import GAP_HI, GAP_LO, gap_table


def gap_histogram(gap_mm: Array, limit_mm: float | None, target_mm: float | None = None) -> str:
    """Share of the implant's surface by gap to cortex, coloured as the heat map, with target and limit drawn."""
    gap = np.asarray(gap_mm, float)
    gap = gap[np.isfinite(gap)]
    edges = np.round(np.arange(GAP_LO, GAP_HI + 0.051, 0.1), 6)
    share = np.histogram(np.clip(gap, GAP_LO, GAP_HI - 1e-9), edges)[0] / max(len(gap), 1) * 100
    width, height, left, right, top, foot = 760, 300, 54, 14, 34, 56
    high = max(float(share.max()), 1.0) * 1.12
    x = lambda mm: left + (mm - GAP_LO) / (GAP_HI - GAP_LO) * (width - left - right)  # noqa: E731
    y = lambda pct: height - foot - pct / high * (height - foot - top)  # noqa: E731
    table = gap_table()
    out = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="Histogram of gaps between implant and cortex">']
    step = next(s for s in (1, 2, 5, 10, 20, 50) if high / s <= 6)
    for tick in np.arange(0, high, step):
        out.append(f'<line x1="{left}" x2="{width - right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" class="grid"/>')
        out.append(f'<text x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g} %</text>')
    for a, pct in zip(edges[:-1], share):
        colour = table[min(int((a + 0.05 - GAP_LO) / (GAP_HI - GAP_LO) * len(table)), len(table) - 1)]
        fill = "#" + "".join(f"{c:02x}" for c in colour)
        out.append(f'<rect x="{x(a) + 0.7:.1f}" y="{y(pct):.1f}" width="{x(a + 0.1) - x(a) - 1.4:.1f}" '
                   f'height="{height - foot - y(pct):.1f}" fill="{fill}" class="bar"/>')  # fmt: skip
    for mm in np.arange(GAP_LO, GAP_HI + 0.01, 0.5):
        text = {GAP_LO: f"≤ {mm:g}", GAP_HI: f"≥ {mm:g}"}.get(float(mm), f"{mm:g}").replace("-", "−")
        out.append(f'<text x="{x(mm):.1f}" y="{height - foot + 18}" text-anchor="middle">{text}</text>')
    for mm, name in ((target_mm, "target"), (limit_mm, "limit")):
        if mm is not None and GAP_LO < mm < GAP_HI:
            out.append(f'<line x1="{x(mm):.1f}" x2="{x(mm):.1f}" y1="{top - 12}" y2="{height - foot}" class="limit"/>')
            out.append(f'<text x="{x(mm) + 5:.1f}" y="{top - 3}" class="strong">{escape(name)} {mm:g} mm</text>')
    out.append(f'<text x="{(left + width - right) / 2}" y="{height - 12}" text-anchor="middle">'
               "← overlap (press-fit) · gap, mm · зазор, мм →</text></svg>")  # fmt: skip
    return "\n".join(out)
