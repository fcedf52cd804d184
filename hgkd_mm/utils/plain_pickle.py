"""Unpickling that makes tensors and plain values, and calls nothing that the file chooses.

``torch.load`` takes a module that unpickles for it. This one restricts globals, as Python's
documentation of ``pickle`` advises: a name of the file is looked up in one table and never
imported. torch's own ``weights_only=True`` is not enough here: before torch 2.6 it takes no
further names, and training checkpoints hold log buffers and numpy values.
"""

from __future__ import annotations

import pickle
import re
import tarfile
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer


class CodeInFileError(Exception):
    """A file asks for something that is neither a tensor nor a plain value."""


def load_plain(path: Path, map_location: Any = 'cpu') -> Any:
    """What a file of ``torch.save`` holds: tensors, plain values, MMEngine's log buffers.

    Command lines and paths, which lie beside the weights in the files of MAE and BEiT, are read
    as placeholders.

    Args:
        path: the file.
        map_location: where the tensors go, as in ``torch.load``.

    Raises:
        CodeInFileError: the file names anything else, or is of a kind that may hold code.
        Exception: it is damaged, which can trip the reader in any way.
    """
    with path.open('rb') as file:
        zipped = file.read(4) == b'PK\x03\x04'
    # torch's own reader of archives decides what is in them, because torch.load goes by it
    if zipped and torch._C.PyTorchFileReader(str(path)).has_record('constants.pkl'):
        raise CodeInFileError('it is a TorchScript program')
    if not zipped and tarfile.is_tarfile(path):
        raise CodeInFileError('it is a tar archive, as torch wrote them before version 0.1.10')
    content = torch.load(
        path, map_location=map_location, pickle_module=_PlainPickle, weights_only=False
    )
    return _finished(content, {})


class _Call:
    """A function that a file may call and cannot change."""

    __slots__ = ('_function',)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: object) -> None:
        raise CodeInFileError('it changes a function')


class _Skipped:
    """Takes any arguments and any state, and keeps nothing."""

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _DType:
    """A numpy type of plain numbers or text; ``value`` is None for one of objects."""

    def __init__(self, code: str) -> None:
        plain = re.fullmatch(r'[<>|=]?[biufcSU]\d+', code)
        self.value = np.dtype(code) if plain else None

    def __setstate__(self, state: tuple) -> None:
        # numpy's own would believe all of it, down to which bytes are addresses
        if self.value is not None and state[1] in ('<', '>'):
            self.value = self.value.newbyteorder(state[1])


class _Array:
    """A numpy array, made of bytes and a type that were looked at."""

    value: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, content = state
        if dtype.value is not None:
            array = np.frombuffer(content, dtype.value)
            self.value = array.reshape(shape, order='F' if fortran else 'C').copy()


class _Buffer:
    """One of MMEngine's log buffers."""

    value: HistoryBuffer | None = None

    def __setstate__(self, state: dict) -> None:
        log, count = state['_log_history'].value, state['_count_history'].value
        self.value = HistoryBuffer(log, count, int(state['max_length']))


def _scalar(dtype: _DType, content: bytes) -> np.generic | None:
    return None if dtype.value is None else np.frombuffer(content, dtype.value)[0]


def _bytes(text: str, encoding: str) -> bytes:
    if encoding != 'latin1':
        raise CodeInFileError(f'it encodes text as {encoding!r}')
    return text.encode('latin1')


_TABLE: dict[str, object] = {
    '_codecs.encode': _Call(_bytes),  # how pickles of protocol 2 write bytes
    'builtins.bytes': _Call(lambda: b''),
    'builtins.complex': _Call(complex),
    'builtins.frozenset': _Call(frozenset),
    'builtins.set': _Call(set),
    'builtins.slice': _Call(slice),
    'collections.Counter': _Call(Counter),
    'collections.OrderedDict': _Call(OrderedDict),
    'collections.defaultdict': _Call(lambda factory=None: defaultdict()),
    'numpy.dtype': _Call(lambda code, *flags: _DType(code)),
    'numpy._core.multiarray._reconstruct': _Call(lambda kind, shape, code: _Array()),
    'numpy._core.multiarray.scalar': _Call(_scalar),
    'torch.device': _Call(torch.device),
    'torch.Size': _Call(torch.Size),
    'torch._utils._rebuild_parameter': _Call(torch._utils._rebuild_parameter),
    'torch._utils._rebuild_parameter_with_state': _Call(
        lambda data, *rest: torch._utils._rebuild_parameter(data, rest[0], OrderedDict())
    ),
    'torch._utils._rebuild_tensor': _Call(torch._utils._rebuild_tensor),
    'torch._utils._rebuild_tensor_v2': _Call(torch._utils._rebuild_tensor_v2),
    # a tensor with attributes, which go
    'torch._tensor._rebuild_from_type_v2': _Call(
        lambda function, kind, args, state: function(*args)
    ),
    'mmengine.logging.history_buffer.HistoryBuffer': _Buffer,
    # a log buffer's table of statistics, which every buffer has by itself
    'builtins.getattr': _Call(lambda *args: None),
    'argparse.Namespace': _Skipped,
    'builtins.dict': _Skipped,
    'builtins.float': _Skipped,
    'builtins.int': _Skipped,
    'builtins.list': _Skipped,
    'numpy.ndarray': _Skipped,
    'pathlib.PosixPath': _Skipped,
    'pathlib.WindowsPath': _Skipped,
    'torch.Tensor': _Skipped,
    'torch.nn.parameter.Parameter': _Skipped,
}
# modules as Python 2 and older numpy call them
_RENAMED = {'__builtin__': 'builtins', 'numpy.core.multiarray': 'numpy._core.multiarray'}


class _Unpickler(pickle.Unpickler):
    """Looks every name up, and imports none."""

    def find_class(self, module: str, name: str) -> object:
        full = f'{_RENAMED.get(module, module)}.{name}'
        if full in _TABLE:
            return _TABLE[full]
        found = getattr(torch, name, None) if module == 'torch' else None
        if isinstance(found, (torch.dtype, torch.layout)):
            return found
        raise CodeInFileError(f'it names {full}')


class _PlainPickle:
    """What ``torch.load`` uses of a module such as ``pickle``."""

    Unpickler = _Unpickler

    @staticmethod
    def load(file: Any, **options: Any) -> Any:
        """One object of an open file."""
        return _Unpickler(file, **options).load()


def _finished(node: Any, seen: dict[int, Any]) -> Any:
    """The content with the values that stand-ins were made for, in place."""
    if isinstance(node, (_Array, _Buffer, _DType)):
        return node.value
    if isinstance(node, (dict, list)) and id(node) not in seen:
        seen[id(node)] = node
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            node[key] = _finished(value, seen)
    if type(node) is tuple:
        return tuple(_finished(value, seen) for value in node)
    return node
