"""Hands a bundle of arrays to compiled code as one pointer.

A tuple of thirty arrays is passed by numba as more than two hundred values, copied at every call that is not inlined;
on this code that took nine tenths of the time. Here the arrays' addresses and shapes lie in a table, a kernel gets the
table's address, and `s.nodes` reads one line of it. The arrays are borrowed: the bundle keeps them alive, so compiled
code counts no references. In plain Python the bundle is an ordinary object with the same attributes.
"""

from dataclasses import fields
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AttributeTemplate
from numba.extending import (
    NativeValue,
    infer_getattr,
    lower_getattr_generic,
    models,
    register_model,
    typeof_impl,
    unbox,
)
from numba.np.arrayobj import populate_array
from numba.np.numpy_support import from_dtype

_COLUMNS = 3  # address, first and second length


class BundleType(types.Type):
    """The numba type of a bundle: the class's name and what each of its arrays holds."""

    def __init__(self, name: str, members: tuple[tuple[str, Any], ...]) -> None:
        self.members = members
        described = ", ".join(f"{member}: {array}" for member, array in members)
        super().__init__(name=f"{name}({described})")


class Bundle:
    """Base of frozen dataclasses whose fields are all arrays, and which kernels take as one pointer."""

    def __post_init__(self) -> None:
        lines = []
        members = []
        for member in fields(self):  # type: ignore[arg-type]
            array = getattr(self, member.name)
            if not array.flags.c_contiguous or array.ndim > 2:
                raise ValueError(f"{member.name} must be C-contiguous with one or two dimensions")
            lines.append((array.ctypes.data, array.shape[0], array.shape[1] if array.ndim == 2 else 1))
            members.append((member.name, types.Array(from_dtype(array.dtype), array.ndim, "C")))
        table = np.array(lines, dtype=np.int64)
        object.__setattr__(self, "table", table)
        object.__setattr__(self, "address", table.ctypes.data)
        object.__setattr__(self, "numba_type", BundleType(type(self).__name__, tuple(members)))


@typeof_impl.register(Bundle)
def _type_of_bundle(value: Any, _context: Any) -> Any:
    return value.numba_type


register_model(BundleType)(models.OpaqueModel)


@unbox(BundleType)  # type: ignore[no-untyped-call, untyped-decorator]
def _unbox_bundle(_type: Any, value: Any, context: Any) -> Any:
    address = context.pyapi.object_getattr_string(value, "address")
    number = context.pyapi.long_as_longlong(address)
    context.pyapi.decref(address)
    return NativeValue(context.builder.inttoptr(number, cgutils.voidptr_t))  # type: ignore[no-untyped-call]


@infer_getattr
class _BundleAttribute(AttributeTemplate):
    key = BundleType

    def generic_resolve(self, bundle_type: Any, name: str) -> Any:  # type: ignore[override]
        return dict(bundle_type.members).get(name)


@lower_getattr_generic(BundleType)  # type: ignore[no-untyped-call, untyped-decorator]
def _read_member(context: Any, builder: Any, bundle_type: Any, value: Any, name: str) -> Any:
    index = [member for member, _ in bundle_type.members].index(name)
    array_type = bundle_type.members[index][1]
    word = ir.IntType(64)
    table = builder.bitcast(value, word.as_pointer())

    def cell(column: int) -> Any:
        return builder.load(builder.gep(table, [ir.Constant(word, index * _COLUMNS + column)]))

    itemsize = context.get_abi_sizeof(context.get_data_type(array_type.dtype))
    array = context.make_array(array_type)(context, builder)
    lengths = [cell(1 + axis) for axis in range(array_type.ndim)]
    strides = [ir.Constant(word, itemsize)]
    if array_type.ndim == 2:
        strides = [builder.mul(lengths[1], ir.Constant(word, itemsize)), *strides]
    populate_array(  # type: ignore[no-untyped-call]
        array,
        data=builder.inttoptr(cell(0), context.get_data_type(array_type.dtype).as_pointer()),
        shape=cgutils.pack_array(builder, lengths),  # type: ignore[no-untyped-call]
        strides=cgutils.pack_array(builder, strides),  # type: ignore[no-untyped-call]
        itemsize=ir.Constant(word, itemsize),
        meminfo=None,
    )
    return array._getvalue()
