"""Unpickling that makes tensors and plain values, and calls nothing that the file chooses.

The rule, as Python's documentation of ``pickle`` advises: a name of the file is looked up in one
table (`_TABLE`) and never imported. torch's own ``weights_only=True`` is not enough here: before
torch 2.6 it takes no further names, and training checkpoints hold log buffers and numpy values.
"""

from __future__ import annotations

import pickle
import re
import tarfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor


class CodeInFileError(Exception):
    """A file asks for something that is neither a tensor nor a plain value."""


def load_plain(path: Path, map_location: Any = 'cpu') -> Any:
    """What a file of ``torch.save`` holds: tensors, plain values, MMEngine's log buffers.

    Command lines, which lie beside the weights in the files of MAE and BEiT, are read as None.

    Raises:
        CodeInFileError: the file names anything else, or is of a kind that may hold code.
        Exception: it is damaged, which can trip the reader in any way.
    """
    with path.open('rb') as file:
        zipped = file.read(4) == b'PK\x03\x04'
    # asked as torch.load asks, which would hand a program to TorchScript
    if zipped and 'constants.pkl' in torch._C.PyTorchFileReader(str(path)).get_all_records():
        raise CodeInFileError('it is a TorchScript program')
    if not zipped and _is_tar(path):
        raise CodeInFileError('it is a tar archive, as torch wrote them before version 0.1.10')
    content = torch.load(
        path, map_location=map_location, pickle_module=_PlainPickle, weights_only=False
    )
    return _finished(content, {})


def _is_tar(path: Path) -> bool:
    try:
        with tarfile.open(path, 'r:') as file:
            return file.next() is not None
    except tarfile.TarError:
        return False


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

    value = None

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _Method:
    """A method that an object of MMEngine's had, and has by itself when it is made anew."""


class _DType:
    """A numpy type of plain numbers or text."""

    def __init__(self, code: str) -> None:
        if not re.fullmatch(r'[<>|=]?[biufcSU]\d+', code):
            raise CodeInFileError(f'it holds numpy values of type {code!r}')
        self.value = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        # numpy's own would believe all of it, down to which bytes are addresses
        if state[1] in ('<', '>'):
            self.value = self.value.newbyteorder(state[1])


class _Array:
    """A numpy array, made of bytes and a type that were looked at."""

    value: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, content = state
        array = np.frombuffer(content, dtype.value)
        self.value = array.reshape(shape, order='F' if fortran else 'C').copy()


class _Buffer:
    """One of MMEngine's log buffers."""

    value: HistoryBuffer | None = None

    def __setstate__(self, state: dict) -> None:
        log, count = state['_log_history'].value, state['_count_history'].value
        self.value = HistoryBuffer(log, count, int(state['max_length']))


def _scalar(dtype: _DType, content: bytes) -> np.generic:
    # an empty text has no bytes
    return np.frombuffer(content, dtype.value)[0] if dtype.value.itemsize else dtype.value.type()


def _tensor(
    storage: Any, offset: int, size: tuple, stride: tuple, grad: bool, *rest: Any
) -> Tensor:
    return torch._utils._rebuild_tensor_v2(storage, offset, size, stride, grad, OrderedDict())


def _parameter(data: Tensor, grad: bool, *rest: Any) -> torch.nn.Parameter:
    return torch._utils._rebuild_parameter(data, grad, OrderedDict())


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
    'collections.defaultdict': _Call(lambda factory=None: {}),
    'mmengine.config.config.ConfigDict': _Call(lambda items=(): dict(items)),
    'mmengine.logging.history_buffer.HistoryBuffer': _Buffer,
    'numpy.dtype': _Call(lambda code, *flags: _DType(code)),
    'numpy._core.multiarray._reconstruct': _Call(lambda kind, shape, code: _Array()),
    'numpy._core.multiarray.scalar': _Call(_scalar),
    'pathlib.PosixPath': _Call(Path),
    'pathlib.WindowsPath': _Call(Path),
    'torch.device': _Call(torch.device),
    'torch.Size': _Call(torch.Size),
    'torch._utils._rebuild_parameter': _Call(_parameter),
    'torch._utils._rebuild_parameter_with_state': _Call(_parameter),
    'torch._utils._rebuild_tensor': _Call(torch._utils._rebuild_tensor),
    'torch._utils._rebuild_tensor_v2': _Call(_tensor),
    # a tensor with attributes, which go
    'torch._tensor._rebuild_from_type_v2': _Call(lambda make, kind, args, state: make(*args)),
    'builtins.getattr': _Call(lambda *args: _Method()),
    **{
        name: _Skipped
        for name in (
            'argparse.Namespace',
            'builtins.dict',
            'builtins.float',
            'builtins.int',
            'builtins.list',
            'builtins.long',
            'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler',
            'numpy.ndarray',
            'torch.Tensor',
            'torch.nn.parameter.Parameter',
        )
    },
    **{f'torch.{k}': value for k, value in vars(torch).items() if isinstance(value, torch.dtype)},
}
# modules as Python 2, older numpy and newer Python call them
_RENAMED = {
    '__builtin__': 'builtins',
    'numpy.core.multiarray': 'numpy._core.multiarray',
    'pathlib._local': 'pathlib',
}


class _Unpickler(pickle.Unpickler):
    """Looks every name up, and imports none."""

    def find_class(self, module: str, name: str) -> object:
        full = f'{_RENAMED.get(module, module)}.{name}'
        if full not in _TABLE:
            raise CodeInFileError(f'it names {full}')
        return _TABLE[full]


class _PlainPickle:
    """What ``torch.load`` uses of a module such as ``pickle``."""

    Unpickler = _Unpickler

    @staticmethod
    def load(file: Any, **options: Any) -> Any:
        return _Unpickler(file, **options).load()


def _finished(node: Any, seen: dict[int, tuple[Any, Any]]) -> Any:
    """What was unpickled with the values of the stand-ins; dicts and lists in place.

    ``seen`` holds by id what was looked at, which keeps the id its own, and what it became.
    """
    if isinstance(node, (_Array, _Buffer, _DType, _Skipped)):
        return node.value
    if not isinstance(node, (dict, list, tuple)) or isinstance(node, torch.Size):
        return node
    if id(node) in seen:
        return seen[id(node)][1]
    seen[id(node)] = node, node
    if isinstance(node, tuple):
        seen[id(node)] = node, tuple(_finished(value, seen) for value in node)
    elif isinstance(node, list):
        node[:] = [_finished(value, seen) for value in node]
    else:
        _finish_dict(node, seen)
    return seen[id(node)][1]


def _finish_dict(node: dict, seen: dict[int, tuple[Any, Any]]) -> None:
    if type(node) is not dict:
        # Attributes could stand for the dict's own methods; of a state dict versions are kept.
        versions = vars(node).get('_metadata')
        vars(node).clear()
        if isinstance(versions, dict):
            node._metadata = _finished(versions, seen)
    for key, value in list(node.items()):
        if isinstance(value, _Method):
            del node[key]
        else:
            node[key] = _finished(value, seen)
