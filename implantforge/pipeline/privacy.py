"""Nothing that names the patient may stand in a Run folder: the last look before the manifest is written."""

from __future__ import annotations

import gzip
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from implantforge import core
from implantforge.core import InputError

_TEXT = {".json", ".toml", ".html", ".txt", ".xml", ".model", ".rels", ".svg", ".csv", ".tag", ".cli", ""}
_LONG = 8  # a shorter token turns up in megabytes of binary numbers by chance
_HEAD = 4096
_PICTURE = re.compile(rb"base64,[A-Za-z0-9+/=]+")


def assert_clean(folder: Path, tokens: Iterable[str]) -> None:
    """Raises InputError naming the file, never the token, when any file below the folder holds one of the tokens.

    Looks inside zip containers (3MF) and gzip streams (NRRD), in text as whole words whatever their case.
    """
    words = _usable(tokens)
    if not words:
        return
    whole = re.compile(rb"(?<![a-z0-9])(?:" + b"|".join(map(re.escape, words)) + rb")(?![a-z0-9])")
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if whole.search(name.lower().encode()):
            raise InputError(f"privacy: a file name in {folder.name} holds the patient's identity; nothing is released")
        for suffix, data in _contents(path):
            low = data.lower()
            if not any(word in low for word in words):
                continue
            text = _PICTURE.sub(b"", low if suffix in _TEXT else low[:_HEAD])
            if whole.search(text) or (suffix not in _TEXT and any(word in low for word in words if len(word) >= _LONG)):
                raise InputError(f"privacy: {name} holds the patient's identity; nothing is released")


def _usable(tokens: Iterable[str]) -> list[bytes]:
    """Tokens worth searching: full values, and the parts of names that are not words of this software itself."""
    found = set()
    for token in tokens:
        value = token.strip()
        parts = [part for part in re.split(r"[\s^=,]+", value) if part]
        if len(parts) > 1:
            found |= {" ".join(parts), "^".join(parts), " ".join(reversed(parts[:2]))}
        elif re.fullmatch(r"\d{8}", value):
            found |= {value, f"{value[:4]}-{value[4:6]}-{value[6:]}"}
        found |= {part for part in parts if len(part) >= 3 and part.casefold() not in _own_words()}
    return sorted(word.lower().encode() for word in found)


@cache
def _own_words() -> frozenset[str]:
    """Words of the package's own texts: a patient called Young must not stop a report that mentions Young's modulus."""
    root = Path(core.__file__).parent.parent
    files = [path for path in root.rglob("*") if path.suffix in (".py", ".html", ".toml", ".js", ".css")]
    files += list((root.parent / "pipelines").glob("*.toml"))
    pages = (path.read_text(encoding="utf-8", errors="ignore") for path in files)
    return frozenset(word for page in pages for word in re.findall(r"[a-z]{3,}", page.casefold()))


def _contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """(suffix, bytes) of a file, of a zip's members, or of what a gzip stream unpacks to."""
    data = path.read_bytes()
    suffix = path.suffix.lower()
    yield suffix, data
    if data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(path) as box:
            for row in box.infolist():
                yield "", row.filename.encode()
                yield Path(row.filename).suffix.lower(), box.read(row)
    start = data.find(b"\n\n") + 2 if data[:4] == b"NRRD" else 0
    if data[start : start + 2] == b"\x1f\x8b":
        try:
            yield ".unpacked", gzip.decompress(data[start:])
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"privacy: {path.name} cannot be unpacked to look inside ({error})") from error
