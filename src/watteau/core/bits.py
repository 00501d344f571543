"""Bit sets of nodes: words of WORD_BITS bits in int64, so that no operation ever touches the sign."""

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

#: Nodes per word. A block starts at a word of its own, so that a block is a run of whole words.
WORD_BITS = 62


def lowest_bit(word: int) -> int:
    """Position of the lowest set bit; the word is not zero."""
    return (int(word) & -int(word)).bit_length() - 1


@intrinsic
def _count_trailing_zeros(_context: Any, word: Any) -> Any:
    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.int64), build


@overload(lowest_bit)
def _lowest_bit_compiled(word: Any) -> Any:
    def lowest_bit_compiled(word: Any) -> Any:  # numba wants the same signature, annotations included
        return _count_trailing_zeros(word)  # type: ignore[call-arg]

    return lowest_bit_compiled


def count_bits(word: int) -> int:
    """How many bits of a word are set."""
    return int(word).bit_count()


@intrinsic
def _population_count(_context: Any, word: Any) -> Any:
    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.int64), build


@overload(count_bits)
def _count_bits_compiled(word: Any) -> Any:
    def count_bits_compiled(word: Any) -> Any:
        return _population_count(word)  # type: ignore[call-arg]

    return count_bits_compiled


#: The one way in which kernels are compiled: cached on disk, no Python objects, numpy's rules for division.
kernel = njit(cache=True, error_model="numpy", nogil=True)
