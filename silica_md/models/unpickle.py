"""Read a torch-saved pickle as inert data: an interpreter of pickle opcodes that can execute nothing.

A file that ``torch.save(model, path)`` wrote is a zip archive with a pickle program `data.pkl` and raw tensor storages.
Python's own unpickler, run on it, imports and calls whatever the program names; here the program is interpreted by the
short machine below instead, which never imports, never looks up an attribute and never calls anything but the few
builders of `_BUILDERS`. What it meets is one of

============================================  ==================================================================
named in the file                             becomes
============================================  ==================================================================
storages, tensors, parameters, dtypes         torch tensors and dtypes, sizes checked against the file
OrderedDict, set, slice, torch.Size, device   plain containers, a string for a device
anything of mace, e3nn, torch.nn; the parts   `Record`: class name, arguments and state, no code
of `INERT` that such models hold
everything else                               `RefusedPickleError` naming it, before anything is made of it
============================================  ==================================================================

Bytes in the file that hold TorchScript (e3nn keeps its generated code so) stay bytes; they are never loaded.
"""

from __future__ import annotations

import contextlib
import math
import pickletools
import sys
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from ..errors import PublishedModelError, RefusedPickleError

LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
"""How files of torch before 1.6 (and of ``_use_new_zipfile_serialization=False``) begin."""

INERT_PACKAGES = ("mace", "e3nn", "torch.nn")
INERT = {
    ("torch.fx.graph_module", "reduce_graph_module"),
    ("torch.fx._symbolic_trace", "Tracer"),
    ("torch._C", "_VariableFunctionsClass"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
}
"""Single names outside those packages that MACE models contain: compiled contractions, torch functions, numbers."""

_DTYPES = {
    name: getattr(torch, name)
    for name in ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
}
_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(frozen=True)
class Global:
    """A name in the file that stays a name: nothing was imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Record:
    """What stands for an object of a class that is not run.

    Attributes
    ----------
    kind : Global
        Its class, or the function that would have made it.
    arguments : tuple
        What that would have been called with.
    state : object
        What ``__setstate__`` or ``__dict__`` would have received; None where nothing was.
    """

    kind: Global
    arguments: tuple = ()
    state: object = None


def read_pickle(path: str | Path | BinaryIO) -> object:
    """Read what ``torch.save`` wrote, as tensors, plain containers and `Record`; no code of the file runs.

    Parameters
    ----------
    path : str, Path or binary file
        A file in torch's zip format (torch 1.6 and later).

    Returns
    -------
    object
        The saved object; for a module a `Record` whose ``state`` holds ``_parameters``, ``_buffers``, ``_modules``.

    Raises
    ------
    RefusedPickleError
        The file names something that is not on the list of this module's documentation; the message names it.
    PublishedModelError
        It is no such file, of the format before torch 1.6, a TorchScript archive, truncated or damaged.

    Notes
    -----
    Cost: one pass over `data.pkl`; storages are read when a tensor first uses them. Memory: about that of the file.
    """
    name = path if isinstance(path, (str, Path)) else getattr(path, "name", "the model")
    try:
        with Path(path).open("rb") if isinstance(path, (str, Path)) else contextlib.nullcontext(path) as file:
            if file.read(len(LEGACY)) == LEGACY:
                raise PublishedModelError(
                    f"{name} is in torch's format before 1.6, which is not read here; load it with torch where you "
                    "trust it, and write it again with torch.save"
                )
            file.seek(0)
            return _read_archive(file, name)
    except OSError as error:
        raise PublishedModelError(f"{name} cannot be read ({error.strerror or error})") from error
    except (zipfile.BadZipFile, EOFError) as error:
        raise PublishedModelError(
            f"{name} is no file that torch.save wrote, or it is truncated or damaged ({error})"
        ) from error


def _read_archive(file: BinaryIO, path: str | Path) -> object:
    with zipfile.ZipFile(file) as archive:
        entries = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        if "data.pkl" not in entries:
            raise PublishedModelError(f"{path} is a zip archive without data.pkl: no file that torch.save wrote")
        if any(name.startswith("code/") for name in entries):
            raise PublishedModelError(
                f"{path} is a TorchScript archive (a compiled model); convert the model that it was made of"
            )
        packed = [name for name, info in entries.items() if info.compress_type != zipfile.ZIP_STORED]
        if packed:
            raise PublishedModelError(f"{path}: {packed[0]} is compressed, which torch.save never does")
        if "byteorder" in entries and archive.read(entries["byteorder"]).decode() != sys.byteorder:
            raise PublishedModelError(f"{path} was written on a machine of another byte order")
        storages = _Storages(archive, entries, path)
        return _Machine(archive.read(entries["data.pkl"]), storages, path).run()


@dataclass(eq=False)
class _Storages:
    """Tensor storages of an archive, each read once."""

    archive: zipfile.ZipFile
    entries: dict[str, zipfile.ZipInfo]
    path: str | Path

    def __post_init__(self):
        self.read: dict[str, torch.Tensor] = {}

    def __call__(self, identity: object) -> torch.Tensor:
        match identity:
            case ("storage", torch.dtype() as dtype, str() as key, str(), int() as size):
                pass
            case _:
                raise PublishedModelError(f"{self.path} is damaged: a tensor storage is not named as torch does")
        if key not in self.read:
            info = self.entries.get(f"data/{key}")
            if info is None or info.file_size != size * dtype.itemsize:
                found = "missing" if info is None else f"{info.file_size} bytes long"
                raise PublishedModelError(
                    f"{self.path} is damaged: storage {key} should hold {size} of {dtype}, but is {found}"
                )
            content = bytearray(self.archive.read(info))
            self.read[key] = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        stored = self.read[key]
        if stored.dtype != dtype or len(stored) != size:
            raise PublishedModelError(f"{self.path} is damaged: storage {key} is used as {dtype} and {stored.dtype}")
        return stored


def _tensor(storage, offset, size, stride, _requires_grad=False, _hooks=None, metadata=None):
    whole = all(type(n) is int and n >= 0 for n in (offset, *size, *stride)) and len(size) == len(stride)
    if not whole or not isinstance(storage, torch.Tensor) or metadata:
        raise ValueError("a tensor with an impossible layout")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if count else 0
    # A stride of 0 would let a small file ask for any amount of memory.
    if count > len(storage) or (count and last >= len(storage)):
        raise ValueError(f"a tensor of shape {tuple(size)} that does not fit in its storage of {len(storage)}")
    return storage.as_strided(tuple(size), tuple(stride), offset)


def _parameter(data, requires_grad=True, _hooks=None, _state=None):
    if not isinstance(data, torch.Tensor):
        raise ValueError("a parameter without a tensor")
    return torch.nn.Parameter(data, requires_grad=bool(requires_grad) and data.is_floating_point())


def _shown(value):
    # Never the repr of a container: a small pickle can hold one whose repr fills any memory.
    return str(value) if isinstance(value, (str, Global)) else f"a {type(value).__name__}"


def _key(value):
    """Refuse keys whose hash could cost more than their size, such as tuples of tuples of one tuple."""
    plain = (str, bytes, int, float, type(None), Global, Record, torch.dtype)
    if not isinstance(value, plain) and not (type(value) is tuple and all(isinstance(part, plain) for part in value)):
        raise ValueError(f"{_shown(value)} as a key")
    return value


def _bytes(text="", encoding="latin1"):
    if encoding != "latin1" or not isinstance(text, str):
        raise ValueError(f"bytes in the encoding {_shown(encoding)}")
    return text.encode("latin1")


def _function_of_torch(owner, name):
    # How Python writes torch.tanh. The name is kept as a name; nothing is looked up.
    if owner != Global("torch._C", "_VariableFunctionsClass") or not isinstance(name, str):
        raise ValueError(f"getattr of {_shown(owner)} and {_shown(name)}")
    return Global("torch", name)


def _slice(*bounds):
    if not all(bound is None or type(bound) is int for bound in bounds):
        raise ValueError("a slice of other things than integers")
    return slice(*bounds)


_BUILDERS = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("collections", "OrderedDict"): lambda pairs=(): OrderedDict((_key(key), value) for key, value in pairs),
    ("builtins", "set"): lambda members=(): set(map(_key, members)),
    ("builtins", "slice"): _slice,
    ("builtins", "bytes"): lambda: b"",
    ("builtins", "getattr"): _function_of_torch,
    ("_codecs", "encode"): _bytes,
    ("torch", "Size"): lambda sizes=(): tuple(sizes),
    ("torch", "device"): lambda kind, index=0: f"{kind}:{index}",
}
_MARK = object()


class _Machine:
    """The pickle machine, cut down to the opcodes that torch writes."""

    def __init__(self, program: bytes, storages: _Storages, path: str | Path):
        self.program, self.storages, self.path = program, storages, path
        self.stack: list = []
        self.memo: dict[int, object] = {}

    def run(self) -> object:
        """Interpret to the end."""
        try:
            for opcode, argument, _ in pickletools.genops(self.program):
                if opcode.name == "STOP":
                    return self._pop()
                if opcode.name in _CONSTANTS:
                    self.stack.append(_CONSTANTS[opcode.name]())
                elif opcode.name in _LITERALS:
                    self.stack.append(argument)
                elif opcode.name in _TUPLES:
                    self.stack.append(tuple(reversed([self._pop() for _ in range(_TUPLES[opcode.name])])))
                elif opcode.name in _STEPS:
                    _STEPS[opcode.name](self, argument)
                else:
                    raise RefusedPickleError(f"{self.path}: pickle opcode {opcode.name} is none that torch.save writes")
        except (PublishedModelError, zipfile.BadZipFile, EOFError, OSError):
            raise
        except (ValueError, TypeError, KeyError, IndexError, UnicodeError, RuntimeError, OverflowError) as error:
            raise PublishedModelError(f"{self.path} is damaged: its pickle cannot be followed ({error})") from error
        raise PublishedModelError(f"{self.path} is damaged: its pickle has no end")

    def _pop(self):
        top = self.stack.pop()
        if top is _MARK:
            raise ValueError("a mark where a value should be")
        return top

    def _marked(self) -> list:
        items = []
        while (top := self.stack.pop()) is not _MARK:
            items.append(top)
        return items[::-1]

    def _named(self, module: object, name: object) -> object:
        module = "builtins" if module == "__builtin__" else module
        key = (module, name)
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        inert = isinstance(module, str) and any(
            module == package or module.startswith(package + ".") for package in INERT_PACKAGES
        )
        if key not in _BUILDERS and key not in INERT and not inert:
            raise RefusedPickleError(
                f"{self.path} names {module}.{name}, which no model needs: refused, nothing was executed"
            )
        return Global(str(module), str(name))

    def _call(self, function: object, arguments: object) -> object:
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise ValueError(f"a call of {_shown(function)}")
        builder = _BUILDERS.get((function.module, function.name))
        try:
            return Record(function, arguments) if builder is None else builder(*arguments)
        except (ValueError, TypeError) as error:
            raise RefusedPickleError(f"{self.path} calls {function} otherwise than torch does: {error}") from error

    def step_global(self, argument):
        self.stack.append(self._named(*argument.split(" ", 1)))

    def step_stack_global(self, _):
        name, module = self._pop(), self._pop()
        self.stack.append(self._named(module, name))

    def step_reduce(self, _):
        arguments, function = self._pop(), self._pop()
        self.stack.append(self._call(function, arguments))

    def step_newobj_ex(self, _):
        keywords, arguments, function = self._pop(), self._pop(), self._pop()
        if keywords:
            raise ValueError(f"{_shown(function)} made with keywords")
        self.stack.append(self._call(function, arguments))

    def step_build(self, _):
        state, target = self._pop(), self.stack[-1]
        if isinstance(target, Record):
            target.state = state
        elif type(target) is not OrderedDict:  # whose attributes (`_metadata` of a state dict) are of no use here
            raise RefusedPickleError(f"{self.path} sets the state of a {type(target).__name__}, which torch never does")

    def step_storage(self, _):
        self.stack.append(self.storages(self._pop()))

    def step_put(self, index):
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def step_get(self, index):
        self.stack.append(self.memo[index])

    def step_append(self, _):
        self._extend([self._pop()])

    def step_appends(self, _):
        self._extend(self._marked())

    def _extend(self, items):
        if type(self.stack[-1]) is not list:
            raise ValueError(f"items appended to a {type(self.stack[-1]).__name__}")
        self.stack[-1].extend(items)

    def step_setitem(self, _):
        value, key = self._pop(), self._pop()
        self._update([key, value])

    def step_setitems(self, _):
        self._update(self._marked())

    def _update(self, items):
        if type(self.stack[-1]) not in (dict, OrderedDict):
            raise ValueError(f"keys set in a {type(self.stack[-1]).__name__}")
        self.stack[-1].update(zip(map(_key, items[::2]), items[1::2], strict=True))

    def step_additems(self, _):
        items = self._marked()
        if type(self.stack[-1]) is not set:
            raise ValueError(f"members added to a {type(self.stack[-1]).__name__}")
        self.stack[-1].update(map(_key, items))


_CONSTANTS = {
    "MARK": lambda: _MARK,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_STEPS = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine._marked())),
    "FROZENSET": lambda machine, _: machine.stack.append(frozenset(map(_key, machine._marked()))),
    "POP": lambda machine, _: machine.stack.pop(),
    "POP_MARK": lambda machine, _: machine._marked(),
    "GLOBAL": _Machine.step_global,
    "STACK_GLOBAL": _Machine.step_stack_global,
    "REDUCE": _Machine.step_reduce,
    "NEWOBJ": _Machine.step_reduce,
    "NEWOBJ_EX": _Machine.step_newobj_ex,
    "BUILD": _Machine.step_build,
    "BINPERSID": _Machine.step_storage,
    "PUT": _Machine.step_put,
    "BINPUT": _Machine.step_put,
    "LONG_BINPUT": _Machine.step_put,
    "MEMOIZE": _Machine.step_put,
    "BINGET": _Machine.step_get,
    "LONG_BINGET": _Machine.step_get,
    "APPEND": _Machine.step_append,
    "APPENDS": _Machine.step_appends,
    "SETITEM": _Machine.step_setitem,
    "SETITEMS": _Machine.step_setitems,
    "ADDITEMS": _Machine.step_additems,
}
