"""Reading weight files of teachers without running what they contain."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, is_main_process
from mmengine.fileio import get_local_path
from mmengine.logging import MMLogger
from mmengine.utils import digit_version
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

# Log buffers, numpy values and command lines lie beside the weights in training checkpoints of
# MMEngine, MAE and BEiT. None of them is needed, so that each name is read as a placeholder and
# nothing of what it stands for is imported or called.
_SKIPPED = (
    'argparse.Namespace',
    'builtins.getattr',
    'mmengine.logging.history_buffer.HistoryBuffer',
    'numpy._core.multiarray._reconstruct',
    'numpy._core.multiarray.scalar',
    'numpy.core.multiarray._reconstruct',
    'numpy.core.multiarray.scalar',
    'numpy.dtype',
    'numpy.ndarray',
    'pathlib.PosixPath',
    'pathlib.WindowsPath',
)
_CONTAINERS = ('state_dict', 'model', 'module')
_HASH = re.compile(r'-([a-f0-9]{8,})\.')


class _Placeholder:
    """Takes any arguments and any state, and keeps nothing."""

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def read_weights(checkpoint: str | Path | None, *, trust_checkpoint: bool = False) -> dict:
    """Reads the tensors of a checkpoint.

    Pickled files are read with ``torch.load(weights_only=True)``, which runs nothing from the
    file. What MMEngine's Runner and the official MAE and BEiT trainers store beside the weights
    is skipped (torch >= 2.6; older ones refuse such a file).

    Args:
        checkpoint: path, ``http(s)://`` URL (kept in torch.hub's cache), or any address that
            MMEngine's file backends read. ``.safetensors`` or a file of ``torch.save``.
        trust_checkpoint: allow the file to run pickled code if it cannot be read without.

    Returns:
        Name to tensor, on the CPU, from ``state_dict``, ``model`` or ``module`` if the file has
        one of these, else from its top level. A leading ``module.`` of DDP is removed.

    Raises:
        ValueError: ``checkpoint`` is None, or the file holds no tensors.
        FileNotFoundError: there is no such file, or it could not be downloaded.
        RuntimeError: the file is broken, or wants to run code and is not trusted.
    """
    if not checkpoint:
        raise ValueError(
            'A teacher without pre-trained weights would teach noise: checkpoint is '
            f'{checkpoint!r}. Give the path or URL of a weight file (config key checkpoint).'
        )
    with _local(str(checkpoint)) as path:
        content = _read(path, str(checkpoint), trust_checkpoint)
    return _tensors(content, str(checkpoint))


@contextmanager
def _local(source: str) -> Iterator[Path]:
    """The file on this machine's disk."""
    scheme = urlparse(source).scheme
    if scheme in ('http', 'https'):
        yield _downloaded(source)
    elif '://' in source:
        with get_local_path(source) as path:
            yield Path(path)
    else:
        path = Path(source).expanduser()
        if not path.is_file():
            raise FileNotFoundError(
                f'There is no teacher checkpoint at {path} (config key checkpoint; relative '
                f'paths start at {Path.cwd()}).'
            )
        yield path


def _downloaded(url: str) -> Path:
    """The URL's file in torch.hub's cache; the main process fetches, the others wait."""
    path = Path(torch.hub.get_dir()) / 'checkpoints' / Path(urlparse(url).path).name
    try:
        if is_main_process():
            _fetch(url, path)
    finally:
        barrier()
    _fetch(url, path)  # other nodes have a disk of their own
    return path


def _fetch(url: str, path: Path) -> None:
    if path.exists():
        return
    digest = _HASH.search(path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    MMLogger.get_current_instance().info(f'Downloading {url} to {path}.')
    try:
        torch.hub.download_url_to_file(url, str(path), digest and digest.group(1))
    except (URLError, OSError) as error:
        raise FileNotFoundError(
            f'Could not download the teacher checkpoint {url} ({error}). Download it on a '
            'machine with access and give its path (config key checkpoint).'
        ) from error
    except RuntimeError as error:
        raise RuntimeError(
            f'The download of {url} is damaged ({error}). Start again, or download it by hand '
            'and give its path (config key checkpoint).'
        ) from error


def _read(path: Path, source: str, trusted: bool) -> Any:
    if path.suffix == '.safetensors':
        try:
            return load_file(str(path))
        except SafetensorError as error:
            raise RuntimeError(_broken(source, error)) from error
    try:
        with _skipping_bookkeeping():
            return torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        if not trusted:
            raise RuntimeError(
                f'The checkpoint {source} is either damaged or holds more than tensors, and '
                f'reading it would run code from the file ({_reason(error)}). If you trust '
                'where it comes from, set trust_checkpoint=True beside the config key '
                'checkpoint; otherwise save its weights as .safetensors.'
            ) from error
    except Exception as error:  # a damaged file can trip the reader in any way
        raise RuntimeError(_broken(source, error)) from error
    MMLogger.get_current_instance().warning(
        f'Running pickled code of {source}, as trust_checkpoint=True allows.'
    )
    try:
        return torch.load(path, map_location='cpu', weights_only=False)
    except Exception as error:
        raise RuntimeError(_broken(source, error)) from error


def _skipping_bookkeeping() -> AbstractContextManager:
    # Reading a name as something else came with torch 2.6; before, such files are refused.
    if digit_version(torch.__version__) < digit_version('2.6.0'):
        return nullcontext()
    return torch.serialization.safe_globals([(_Placeholder, name) for name in _SKIPPED])


def _reason(error: Exception) -> str:
    """What torch objects to, out of its long explanation."""
    pattern = r'(?i)(unsupported .*?)( was not| whose|\. please|$)|(invalid load key.*)'
    found = re.search(pattern, str(error), re.MULTILINE)
    return (found.group(1) or found.group(3)) if found else str(error).strip().split('\n')[0]


def _broken(source: str, error: Exception) -> str:
    reason = str(error).strip().split('\n')[0] or type(error).__name__
    return (
        f'The checkpoint {source} is not a readable weight file ({reason}). Delete it and '
        'download or save it again (config key checkpoint).'
    )


def _tensors(content: Any, source: str) -> dict[str, Tensor]:
    found = content
    if isinstance(content, Mapping):
        inner = [content[k] for k in _CONTAINERS if isinstance(content.get(k), Mapping)]
        found = inner[0] if inner else content
    tensors = {}
    if isinstance(found, Mapping):
        tensors = {str(k): v.detach() for k, v in found.items() if isinstance(v, Tensor)}
    if not tensors:
        held = ', '.join(map(str, list(content)[:8])) if isinstance(content, Mapping) else ''
        raise ValueError(
            f'The checkpoint {source} holds no weights: expected tensors by name, at the top or '
            f'under {", ".join(_CONTAINERS)}; found {held or type(content).__name__}.'
        )
    if all(name.startswith('module.') for name in tensors):
        tensors = {name.removeprefix('module.'): value for name, value in tensors.items()}
    return tensors
