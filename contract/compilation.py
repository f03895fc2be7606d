"""Compiled functions: numba's on-disk cache, keyed by all that the machine code depends on.

numba keys its cache by the content of a function's own file, but compiles constants and functions of other modules
into the machine code: after a change in one of these a warm cache would give wrong numbers without an error.
"""

import builtins
import dis
import hashlib
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

import numba
import numpy as np
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.dispatcher import Dispatcher


def jit(function: Callable[..., Any]) -> Any:
    """Compile a function at its first call, or load it from the cache; it runs without the GIL.

    Constants and compiled functions that it uses are defined before it, and named directly, not through a module.
    """
    return add_cache(numba.njit(nogil=True)(function))


def jit_in_place(function: Callable[..., Any]) -> Any:
    """`jit` for a function that creates no array, and calls only such functions: it writes to its arguments.

    numba counts references to arrays with atomic operations, also for views and fields of tuples, and has no public
    option for code that needs no counts. They took two thirds of the time of a fold.
    """
    return add_cache(numba.njit(nogil=True, _nrt=False)(function))  # type: ignore[call-overload]


def add_cache(dispatcher: Any) -> Any:
    """The dispatcher with a cache on disk, as by `cache=True`."""
    dispatcher._cache = KeyedCache(dispatcher.py_func)  # type: ignore[no-untyped-call]
    return dispatcher


class KeyedFiles(CompileResultCacheImpl):
    """Names the files of a function by its digest, so that processes of two versions never share a file."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._digest = hashlib.sha256("\n".join(describe(function)).encode()).hexdigest()[:16]
        super().__init__(function)  # type: ignore[no-untyped-call]

    def get_filename_base(self, fullname: str, abiflags: str) -> str:
        name = super().get_filename_base(fullname, abiflags)  # type: ignore[no-untyped-call]
        return f"{name}-{self._digest}"


class KeyedCache(FunctionCache):
    """The cache of one function under these names."""

    _impl_class = KeyedFiles


def describe(function: Callable[..., Any]) -> Iterator[str]:
    """The function's code, and the values of the globals that it uses, down through the functions that it calls."""
    names = set()
    for code in iterate_codes(function.__code__):
        constants = [constant for constant in code.co_consts if not isinstance(constant, CodeType)]
        yield repr((code.co_code, code.co_names, code.co_varnames, constants))
        names |= {step.argval for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL"}
    for name in sorted(names - vars(builtins).keys() - {function.__name__}):
        value = function.__globals__[name]  # raises `KeyError` for a name that is defined later
        yield name
        if isinstance(value, Dispatcher):
            yield from describe(value.py_func)
        elif isinstance(value, np.ndarray):
            yield repr((value.dtype, value.shape, value.tobytes()))
        elif hasattr(value, "__name__"):  # a module, a class or a function of a library
            yield repr((value.__name__, getattr(value, "_fields", None)))
        else:
            yield repr(value)


def iterate_codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from iterate_codes(constant)
