"""The one door to numba. Kernels take arrays and scalars, write into their last argument, and read no module globals."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic

# Reassociation and contraction are safe here; nnan/ninf would let the compiler drop the NaN and inf tests we rely on.
_FAST = {"contract", "arcp", "nsz"}


def _remembered(make: Callable[[], Any]) -> Any:
    """What make() compiles, kept on disk in a folder named after all kernels' sources: numba itself looks at the one file
    a function stands in, and would go on using code made with older ones beside it."""
    folder = Path(__file__).parent
    sources = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))
    settings: Any = numba.config
    kept = settings.CACHE_DIR
    home = Path(kept) if kept else folder / "__pycache__"
    settings.CACHE_DIR = str(home / f"kernels-{hashlib.sha256(sources).hexdigest()[:16]}")
    try:
        return make()
    finally:
        settings.CACHE_DIR = kept


def _compiled(function: Callable[..., Any], **how: Any) -> Callable[..., Any]:
    made: Callable[..., Any] = _remembered(
        lambda: numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST, **how)(function)
    )
    return made


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on first call, remembered on disk, releasing the GIL."""
    return _compiled(function)


def parallel_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """As kernel, with numba.prange allowed on the outermost loop; every iteration must write its own output."""
    return _compiled(function, parallel=True)


def helper(function: Callable[..., Any]) -> Callable[..., Any]:
    """A scalar function for kernels of the same file."""
    return _compiled(function)


class door:
    """A function of int64s, reached by address: code that several kernels call is compiled once. int(door) compiles."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.made: Any = None

    def __int__(self) -> int:
        if self.made is None:
            signature = types.int64(*[types.int64] * self.function.__code__.co_argcount)
            self.made = _remembered(
                lambda: numba.cfunc(signature, cache=True, error_model="numpy", fastmath=_FAST)(self.function)
            )
        return int(self.made.address)


@intrinsic
def call(typingctx, address, a, b, c, d, e, f, g, h, i):  # type: ignore[no-untyped-def]
    """What the door at an address answers, inside kernels."""

    def build(context, builder, signature, args):  # type: ignore[no-untyped-def]
        word = ir.IntType(64)
        return builder.call(builder.inttoptr(args[0], ir.FunctionType(word, [word] * 9).as_pointer()), args[1:])

    return types.int64(*[types.int64] * 10), build


@intrinsic
def _pointer(typingctx, address):  # type: ignore[no-untyped-def]
    def build(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.inttoptr(args[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), build


@numba.njit(inline="always")
def at_address(address, shape, dtype):  # type: ignore[no-untyped-def]
    """The array that lies at an address, inside doors."""
    return numba.carray(_pointer(address), shape, dtype)


@intrinsic
def ones(typingctx, word):  # type: ignore[no-untyped-def]
    """Number of set bits of a uint32, inside kernels."""

    def build(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.zext(builder.ctpop(args[0]), context.get_value_type(types.int64))

    return types.int64(types.uint32), build


@intrinsic
def lowest(typingctx, word):  # type: ignore[no-untyped-def]
    """Place of the lowest set bit of an unsigned word that is not zero, inside kernels."""

    def build(context, builder, signature, args):  # type: ignore[no-untyped-def]
        found = builder.cttz(args[0], context.get_constant(types.boolean, True))
        wide = context.get_value_type(types.int64)
        return found if signature.args[0].bitwidth == 64 else builder.zext(found, wide)

    return types.int64(word), build


prange = numba.prange
