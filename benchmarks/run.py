"""Runs the benchmarks and prints one line a figure; results go to benchmarks/results/<suite>.json.

    python benchmarks/run.py                 every suite
    python benchmarks/run.py meshing build   the suites bench_meshing.py and bench_build.py
    python benchmarks/run.py kernels --only Trilinear   these rows again; the others stay as they are stored
    python benchmarks/run.py --list

Files follow asv's names (setup, setup_cache, params, time_*, track_*, peakmem_*), so `asv run` reads them too. Every
method runs in a fresh process, one after the other, so that compiled code, memory peaks and threads do not mix. A
peakmem_ figure is what the method adds to the memory held after setup (asv counts the interpreter and libraries too).
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SKIPPED = 77  # exit code of a method that cannot run here
sys.path.insert(0, str(HERE))


def suites() -> list[str]:
    """Names of the bench_*.py files."""
    return sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def bench_class(suite: str, kind: str) -> Any:
    """One class of a suite."""
    return getattr(importlib.import_module(f"bench_{suite}"), kind)


def methods(suite: str) -> list[tuple[str, str]]:
    """(class, method) pairs of one suite, inherited methods first; names with an underscore in front are bases."""
    module = importlib.import_module(f"bench_{suite}")
    kinds = [item for item in vars(module).values() if isinstance(item, type) and item.__module__ == module.__name__]
    return [(kind.__name__, name) for kind in kinds if not kind.__name__.startswith("_")
            for name in dict.fromkeys(name for base in reversed(kind.__mro__) for name in vars(base))
            if name.split("_")[0] in ("time", "track", "peakmem")]  # fmt: skip


def memory_mb(row: str) -> float:
    """A Vm row of this process's status; the peak of rusage will not do, a child starts with its parent's."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(row)) / 1024


def added_mb(work: Callable[[], object]) -> float:
    """MB that work adds at most to the memory held when it begins; NotImplementedError where there is no /proc."""
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        raise NotImplementedError("peak memory is read from /proc, which this platform does not have")
    reset.write_text("5")
    before = memory_mb("VmRSS")
    work()
    return memory_mb("VmHWM") - before


def measure(suite: str, kind: str, name: str, given: list[Any]) -> float:
    """One figure, taken in this process: seconds (best of `repeat`, default 5), MB, or what the method returns."""
    bench = bench_class(suite, kind)()
    if hasattr(bench, "setup"):
        bench.setup(*given)
    method = getattr(bench, name)
    if name.startswith("track_"):
        return float(method(*given))
    if name.startswith("peakmem_"):
        return added_mb(lambda: method(*given))
    times: list[float] = []
    while len(times) < getattr(bench, "repeat", 5) and sum(times) < getattr(bench, "sample_time", 20.0):
        began = time.perf_counter()
        method(*given)
        times.append(time.perf_counter() - began)
    return min(times)


def unit(suite: str, kind: str, name: str) -> str:
    """Unit of a figure: s, MB, the class's `unit`, or the last word of a track_ method's name."""
    if name.startswith("time_"):
        return "s"
    if name.startswith("peakmem_"):
        return "MB"
    last = name.rsplit("_", 1)[-1]
    known = {"pct": "%"}.get(last, last if last in ("mm", "deg", "s", "mm3", "um", "MB") else "")
    return getattr(bench_class(suite, kind), "unit", "") or known


def one(argument: str) -> int:
    """Runs setup_cache (no method named) or one method in this process and prints what came out; the exit code."""
    suite, kind, name, values, cache = json.loads(argument)
    try:
        if not name:
            Path(cache).write_text(json.dumps(bench_class(suite, kind)().setup_cache()))
            return 0
        given = [json.loads(Path(cache).read_text("utf-8"))] if cache else []
        print(json.dumps(measure(suite, kind, name, [*given, *values])))
    except (NotImplementedError, SystemExit) as reason:  # asv skips by the first, a missing input by the second
        print(reason, file=sys.stderr)
        return SKIPPED
    return 0


def fresh(suite: str, kind: str, name: str, values: list[Any], cache: str, timeout: float) -> tuple[str, Any]:
    """('value' | 'skipped' | 'error', what) of a method run in a fresh process; name '' runs setup_cache."""
    argument = json.dumps([suite, kind, name, values, cache])
    # numpy's arrays are then given back when freed, so that a later peak is not hidden in kept pages
    exact = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    env = {**os.environ, **(exact if name.startswith("peakmem_") else {})}
    try:
        done = subprocess.run([sys.executable, __file__, "--one", argument], capture_output=True, text=True, env=env,
                              timeout=timeout, check=False)  # fmt: skip
    except subprocess.TimeoutExpired:
        return "error", f"not done after {timeout:.0f} s"
    if done.returncode == 0:
        return "value", json.loads(done.stdout.strip().splitlines()[-1]) if name else None
    why = (done.stderr.strip().splitlines() or [f"exit {done.returncode}, no output"])[-1]
    return ("skipped" if done.returncode == SKIPPED else "error"), why


def run(suite: str, folder: Path, only: str = "") -> list[dict[str, Any]]:
    """Rows of one suite whose name or parameters hold `only`: class, method, parameters, unit, and a value, or why
    there is none."""
    rows: list[dict[str, Any]] = []
    caches: dict[str, tuple[str, Any, str]] = {}
    for kind, name in methods(suite):
        bench = bench_class(suite, kind)
        timeout, params = getattr(bench, "timeout", 600), getattr(bench, "params", ())
        grid = params if params and isinstance(params[0], (list, tuple)) else [params]
        wanted = [values for values in (itertools.product(*grid) if params else [()])
                  if only in f"{kind}.{name} {' '.join(map(str, values))}"]  # fmt: skip
        if not wanted:
            continue
        maker = bench.setup_cache.__qualname__ if hasattr(bench, "setup_cache") else ""  # may be shared by inheritance
        if maker not in caches:
            path = str(folder / f"{maker}.json") if maker else ""
            caches[maker] = (*(fresh(suite, kind, "", [], path, timeout) if path else ("value", None)), path)
        ready, why, cache = caches[maker]
        for values in wanted:
            found = (ready, why) if ready != "value" else fresh(suite, kind, name, list(values), cache, timeout)
            row = {"name": f"{kind}.{name}", "params": list(values), "unit": unit(suite, kind, name),
                   found[0]: found[1]}  # fmt: skip
            rows.append(row)
            print(line(suite, row), flush=True)
    return rows


def line(suite: str, row: dict[str, Any]) -> str:
    """A row of the table: suite, method, parameters, value, unit."""
    text = f"{row['value']:>10.4g} {row['unit']}" if "value" in row else row.get("skipped") or row["error"]
    return f"{suite:11s} {row['name']:40s} {', '.join(map(str, row['params'])):32s} {text}"


def merged(suite: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The stored rows of a suite with these in place of their namesakes."""
    path = HERE / "results" / f"{suite}.json"
    stored = json.loads(path.read_text("utf-8"))["rows"] if path.exists() else []
    fresh_rows = {(row["name"], str(row["params"])): row for row in rows}
    kept = [fresh_rows.pop((row["name"], str(row["params"])), row) for row in stored]
    return [*kept, *fresh_rows.values()]


def store(suite: str, rows: list[dict[str, Any]], seconds: float) -> None:
    """results/<suite>.json, with what machine and which versions gave it."""
    versions = {name: importlib.metadata.version(name) for name in ("implantforge", "numpy", "numba", "scipy")}
    text = {"suite": suite, "cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version(),
            "versions": versions, "seconds": round(seconds, 1), "rows": rows}  # fmt: skip
    (HERE / "results" / f"{suite}.json").write_text(json.dumps(text, indent=1) + "\n")


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", help="which suites; all when none is named")
    parser.add_argument("--list", action="store_true", help="say what there is")
    parser.add_argument("--only", default="", help="rows whose name or parameters hold this text")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        return one(given.one)
    unknown = set(given.suites) - set(suites())
    if unknown:
        parser.error(f"no suite {', '.join(sorted(unknown))}; there are {', '.join(suites())}")
    if given.list:
        print("\n".join(suites()))
        return 0
    failed = False
    print(f"{'suite':11s} {'method':40s} {'parameters':32s} {'value':>10s} unit")
    for suite in given.suites or suites():
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            rows = run(suite, Path(folder), given.only)
            store(suite, merged(suite, rows) if given.only else rows, time.perf_counter() - began)
        failed |= any("error" in row for row in rows)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
