"""Root finding along crossed edges for fields that are evaluated in Python."""

from implantforge.kernels.jit import helper, parallel_kernel, prange


@parallel_kernel
def edge_points(low, axis, h, t, points):  # type: ignore[no-untyped-def]
    """points (n,3) mm at t along each edge."""
    for n in prange(len(t)):
        for c in range(3):
            points[n, c] = low[n, c]
        points[n, axis[n]] += h * t[n]


@helper
def _inverse_quadratic(a, fa, b, fb, c, fc):  # type: ignore[no-untyped-def]
    """Zero of the parabola t(f) through three samples (NaN or inf when two values agree)."""
    return (
        a * fb * fc / ((fa - fb) * (fa - fc))
        + b * fa * fc / ((fb - fa) * (fb - fc))
        + c * fa * fb / ((fc - fa) * (fc - fb))
    )


@parallel_kernel
def tighten(found, halve, tolerance, bracket, ends, t):  # type: ignore[no-untyped-def]
    """One safeguarded root-finding step: found = field at t; bracket (n,2) and ends (n,2) shrink, t moves inside them
    (to the middle when halve and not yet within tolerance: kinks defeat interpolation)."""
    for n in prange(len(t)):
        at, f = t[n], found[n]
        lo, hi, fl, fh = bracket[n, 0], bracket[n, 1], ends[n, 0], ends[n, 1]
        if not (lo < at < hi) or f == 0.0:
            continue
        guess = _inverse_quadratic(lo, fl, at, f, hi, fh)
        if (f < 0) == (fl < 0):
            lo, fl = at, f
        else:
            hi, fh = at, f
        if halve and abs(f) > tolerance:
            guess = 0.5 * (lo + hi)
        elif not (lo < guess < hi):
            guess = lo + (hi - lo) * fl / (fl - fh)
        if abs(f) <= tolerance and abs(guess - at) > 0.05:
            guess = at  # grazing edge: good enough here, and nothing will check the leap
        bracket[n, 0], bracket[n, 1], ends[n, 0], ends[n, 1] = lo, hi, fl, fh
        t[n] = guess
