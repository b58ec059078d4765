"""Files that once broke the reader, and a short run of the fuzzer: results or refusals, nothing else."""

from __future__ import annotations

from pathlib import Path

import fuzz_reader
import pytest

SEEDS = sorted((Path(__file__).parent / "fuzz_seeds").iterdir())


@pytest.mark.parametrize("seed", SEEDS, ids=lambda p: p.name)
def test_seed_is_refused_or_read(tmp_path: Path, seed: Path) -> None:
    path = tmp_path / seed.name.partition("_")[2]
    path.write_bytes(seed.read_bytes())
    fuzz_reader.read_all(path)


@pytest.mark.filterwarnings("ignore")
def test_three_hundred_damaged_files(tmp_path: Path) -> None:
    for number in range(300):
        name, data = fuzz_reader.damaged(number)
        (tmp_path / name).write_bytes(data)
        fuzz_reader.read_all(tmp_path / name)


def test_same_number_same_damage() -> None:
    fuzz_reader.corpus.cache_clear()
    one = [fuzz_reader.damaged(n) for n in range(20)]
    fuzz_reader.corpus.cache_clear()
    assert one == [fuzz_reader.damaged(n) for n in range(20)]


@pytest.mark.slow
def test_fuzz_in_a_child_for_a_minute() -> None:
    done, findings = fuzz_reader.run(1.0, 700_000, None)
    assert done > 500 and not findings
