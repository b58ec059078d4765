"""The one door to numba. Kernels take arrays and scalars, write into their last argument, and read no module globals."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import numba
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np import arrayobj

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
    return _compiled(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def lean(function: Callable[..., Any]) -> Callable[..., Any]:
    """As helper, for loops that neither make arrays nor keep them: no references are counted in it (a tenth of the time of
    meshing, as many small loops pass parts of arrays)."""
    return _compiled(function, no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False)


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """As helper, for what one place alone calls: a part of it, compiled once, that counts no references."""
    made: Callable[..., Any] = numba.njit(inline="always")(function)
    return made


def shared(work: Callable[..., Any], count: int, least: int, *given: Any) -> None:
    """work(first, last, *given) over 0..count, cut into runs of at least `least` that threads take as they come free: a
    kernel compiled once, without the code that numba needs for prange (half of its time), and no thread waits for the
    one with the larger half. Every run writes its own output."""
    threads = numba.get_num_threads()
    size = max(least, -(-count // (16 * threads)))
    if threads == 1 or count <= size:
        work(0, count, *given)
        return
    left, failed = iter(range(0, count, size)), []

    def take() -> None:
        try:
            for first in left:
                work(first, min(first + size, count), *given)
        except BaseException as error:  # raised again in the caller's thread
            failed.append(error)

    others = [Thread(target=take) for _ in range(threads - 1)]
    for other in others:
        other.start()
    take()
    for other in others:
        other.join()
    if failed:
        raise failed[0]


class door:
    """A function of int64s that makes no arrays, reached by address: code that several kernels call is compiled once, when
    int(door) is first asked for."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.made: Any = None

    def __int__(self) -> int:
        if self.made is None:
            signature = types.int64(*[types.int64] * self.function.__code__.co_argcount)
            how: dict[str, Any] = {"cache": True, "error_model": "numpy", "fastmath": _FAST, "_nrt": False}
            self.made = _remembered(lambda: numba.cfunc(signature, **how)(self.function))
        return int(self.made.address)


@intrinsic
def call(typingctx, address, a, b, c, d, e, f, g, h, i):  # type: ignore[no-untyped-def]
    """What the door at an address answers, inside kernels."""

    def build(context, builder, signature, args):  # type: ignore[no-untyped-def]
        word = ir.IntType(64)
        return builder.call(builder.inttoptr(args[0], ir.FunctionType(word, [word] * 9).as_pointer()), args[1:])

    return types.int64(*[types.int64] * 10), build


@intrinsic
def at_address(typingctx, address, shape, dtype):  # type: ignore[no-untyped-def]
    """The array of a shape (a tuple) that lies at an address, inside doors."""
    kind = types.Array(dtype.dtype, len(shape), "C")

    def build(context, builder, signature, args):  # type: ignore[no-untyped-def]
        made = arrayobj.make_array(kind)(context, builder)
        sizes = [context.cast(builder, size, of, types.intp)
                 for size, of in zip(cgutils.unpack_tuple(builder, args[1]), signature.args[1])]  # fmt: skip
        step = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(kind.dtype)))
        steps = [step]
        for size in sizes[:0:-1]:
            steps.insert(0, builder.mul(steps[0], size))
        data = builder.inttoptr(args[0], made.data.type)
        arrayobj.populate_array(made, data=data, shape=sizes, strides=steps, itemsize=step, meminfo=None)
        return made._getvalue()

    return kind(address, shape, dtype), build


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
