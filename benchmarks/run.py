"""Runs the benchmarks and prints time, error and peak memory; results go to benchmarks/results.

    python benchmarks/run.py                 every suite
    python benchmarks/run.py meshing build   the suites bench_meshing.py and bench_build.py
    python benchmarks/run.py --list

Files follow asv's names (setup, setup_cache, params, time_*, track_*, peakmem_*), so `asv run` reads them too. Every
method runs in a fresh process, one after the other, so that compiled code, memory peaks and threads do not mix.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))


def suites() -> list[str]:
    """Names of the bench_*.py files."""
    return sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def methods(suite: str) -> list[tuple[str, str]]:
    """(class, method) pairs of one suite, in order of definition."""
    module = importlib.import_module(f"bench_{suite}")
    kinds = [item for item in vars(module).values() if isinstance(item, type) and item.__module__ == module.__name__]
    return [(kind.__name__, name) for kind in kinds for name in vars(kind)
            if name.split("_")[0] in ("time", "track", "peakmem")]  # fmt: skip


def measure(suite: str, kind: str, name: str, given: list[Any]) -> float:
    """One figure, taken in this process: seconds (median of `repeat`, default 5), MB, or what the method returns."""
    bench = getattr(importlib.import_module(f"bench_{suite}"), kind)()
    if hasattr(bench, "setup"):
        bench.setup(*given)
    method = getattr(bench, name)
    if name.startswith("track_"):
        return float(method(*given))
    if name.startswith("peakmem_"):
        method(*given)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    times = []
    for _ in range(getattr(bench, "repeat", 5)):
        began = time.perf_counter()
        method(*given)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def unit(suite: str, kind: str, name: str) -> str:
    """Unit of a figure: s, MB, the class's `unit`, or the last word of a track_ method's name."""
    if name.startswith("time_"):
        return "s"
    if name.startswith("peakmem_"):
        return "MB"
    declared = getattr(getattr(importlib.import_module(f"bench_{suite}"), kind), "unit", "")
    last = name.rsplit("_", 1)[-1]
    return declared or {"pct": "%"}.get(last, last if last in ("mm", "deg", "s", "mm3", "um", "MB") else "")


def cached(suite: str, kind: str, folder: Path) -> list[Any]:
    """What setup_cache returned, as JSON on disk so that every later process reads the same."""
    bench = getattr(importlib.import_module(f"bench_{suite}"), kind)
    if not hasattr(bench, "setup_cache"):
        return []
    path = folder / f"{suite}.{kind}.json"
    if not path.exists():
        path.write_text(json.dumps(bench().setup_cache()))
    return [json.loads(path.read_text())]


def run(suite: str, folder: Path) -> list[dict[str, Any]]:
    """Rows of one suite: name, parameters, value, unit; a failing method is a row with its error."""
    rows = []
    for kind, name in methods(suite):
        given = cached(suite, kind, folder)
        bench = getattr(importlib.import_module(f"bench_{suite}"), kind)
        params = getattr(bench, "params", ())
        grid = params if params and isinstance(params[0], (list, tuple)) else [params]
        for values in itertools.product(*grid) if params else [()]:
            row: dict[str, Any] = {"name": f"{kind}.{name}", "params": list(values), "unit": unit(suite, kind, name)}
            argument = json.dumps([suite, kind, name, list(values), str(folder) if given else ""])
            done = subprocess.run([sys.executable, __file__, "--one", argument], capture_output=True, text=True,
                                  timeout=getattr(bench, "timeout", 600), check=False)  # fmt: skip
            if done.returncode == 0:
                row["value"] = float(done.stdout.strip().splitlines()[-1])
                print(f"  {row['name']:45s} {str(values) if values else '':12s} {row['value']:12.4g} {row['unit']}")
            else:
                row["error"] = (done.stderr.strip().splitlines() or ["no output"])[-1]
                print(f"  {row['name']:45s} {row['error']}")
            rows.append(row)
    return rows


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
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        suite, kind, name, values, folder = json.loads(given.one)
        arguments = [*(cached(suite, kind, Path(folder)) if folder else []), *values]
        print(measure(suite, kind, name, arguments))
        return 0
    unknown = set(given.suites) - set(suites())
    if unknown:
        parser.error(f"no suite {', '.join(sorted(unknown))}; there are {', '.join(suites())}")
    if given.list:
        print("\n".join(suites()))
        return 0
    failed = False
    for suite in given.suites or suites():
        print(suite)
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            rows = run(suite, Path(folder))
            store(suite, rows, time.perf_counter() - began)
        failed |= any("error" in row for row in rows)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
