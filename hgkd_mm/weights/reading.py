"""Reading weight files without running what they contain."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, is_main_process
from mmengine.fileio import get_local_path
from mmengine.logging import MMLogger
from mmengine.runner.checkpoint import (
    CheckpointLoader,
    get_deprecated_model_names,
    get_external_models,
    get_torchvision_models,
)
from safetensors.torch import load_file
from torch import Tensor

from .plain_pickle import CodeInFileError, load_plain

# What networks of mmpretrain, mmdet and mmseg begin the names of their backbone's weights with.
BACKBONE = 'backbone.'
# Where trainers put the weights; MMEngine looks under the first only.
CONTAINERS = ('state_dict', 'model', 'module')
_HASH = re.compile(r'-([a-f0-9]{8,})\.')
# with it torch refuses the module that unpickles for it
_FORCED = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'


class CheckpointError(RuntimeError):
    """A weight file cannot be used."""


class UntrustedCheckpointError(CheckpointError):
    """A weight file would run code and is not trusted."""


def read_tensors(
    source: str | Path | None, *, key: str = 'checkpoint', trusted: bool = False
) -> dict[str, Tensor]:
    """Reads the weights of a file: name to tensor, on the CPU.

    Args:
        source: see `local_file`.
        key: config key or argument that names the file, for messages.
        trusted: allow the file to run pickled code if it cannot be read without.

    Raises:
        FileNotFoundError: there is no such file, or it could not be downloaded.
        CheckpointError: the file is broken, or contains code and is not trusted.
        ValueError: no file is named, or it holds no tensors.
    """
    if not source:
        raise ValueError(f'No weights are named: {key} is {source!r}; give a path or a URL.')
    with local_file(str(source), key=key) as path:
        content = read_file(path, key=key, trusted=trusted)
    return without_wrapper(find_tensors(content, str(source), key=key))


@contextmanager
def local_file(source: str, *, key: str = 'checkpoint') -> Iterator[Path]:
    """The file on this machine's disk.

    Args:
        source: path, ``http(s)://`` URL (kept in torch.hub's cache), ``torchvision://`` and
            ``open-mmlab://`` names, or any address that MMEngine's file backends read.
        key: see `read_tensors`.

    Raises:
        FileNotFoundError: there is no such file, or it could not be downloaded.
        CheckpointError: the download is damaged.
    """
    address = resolve(source)
    if address.startswith(('mmcls://', 'pavi://')):
        raise FileNotFoundError(
            f'No checkpoint is read from {source}: give a path or an https:// address ({key}).'
        )
    if urlparse(address).scheme in ('http', 'https'):
        yield _downloaded(address, key)
    elif '://' in address:
        with get_local_path(address) as path:
            yield Path(path)
    else:
        path = Path(address).expanduser()
        if not path.is_file():
            raise FileNotFoundError(
                f'There is no checkpoint at {path} ({key}; relative paths start at {Path.cwd()}).'
            )
        yield path


def read_file(
    path: Path, *, key: str = 'checkpoint', trusted: bool = False, map_location: Any = 'cpu'
) -> Any:
    """What a ``.safetensors`` file or a file of ``torch.save`` holds.

    Args:
        path: the file.
        key: see `read_tensors`.
        trusted: allow the file to run pickled code if `load_plain` does not read it.
        map_location: where the tensors go, as in ``torch.load``.

    Raises:
        UntrustedCheckpointError: the file contains code and is not trusted.
        CheckpointError: it is broken.
        OSError: the disk does not give it.
    """
    try:
        if path.suffix == '.safetensors':
            return load_file(str(path))
        if os.environ.get(_FORCED, '').lower() in ('1', 'y', 'yes', 'true'):
            raise CheckpointError(
                f'{_FORCED}={os.environ[_FORCED]} keeps {path} from being read: unset it; no code '
                'of a file is run here in any case.'
            )
        try:
            return load_plain(path, map_location)
        except CodeInFileError as error:
            if not trusted:
                raise UntrustedCheckpointError(
                    f'The checkpoint {path} ({key}) holds more than tensors and plain values '
                    f'({error}), and reading it would run code from the file. If you trust where '
                    'it comes from, give --trust-checkpoint, for a teacher trust_checkpoint=True '
                    'in its config; otherwise save its weights as .safetensors.'
                ) from error
            MMLogger.get_current_instance().warning(f'Running pickled code of {path}: trusted.')
            return torch.load(path, map_location=map_location, weights_only=False)
    except (OSError, MemoryError, CheckpointError):
        raise
    except Exception as error:  # a damaged file can trip the reader in any way
        raise CheckpointError(
            f'The checkpoint {path} is not a readable weight file ({reason_of(error)}). Delete it '
            f'and download or save it again ({key}).'
        ) from error


def reason_of(error: Exception) -> str:
    """The first line of an error."""
    return str(error).strip().split('\n')[0] or type(error).__name__


def tensors_in(content: Any, containers: Sequence[str] = CONTAINERS) -> dict[str, Tensor]:
    """Name to tensor under the first container that the content has, else at its top."""
    if not isinstance(content, Mapping):
        return {}
    inner = (content[key] for key in containers if isinstance(content.get(key), Mapping))
    found = next(inner, content)
    return {str(k): v.detach() for k, v in found.items() if isinstance(v, Tensor)}


def find_tensors(
    content: Any, source: str, *, key: str = 'checkpoint', containers: Sequence[str] = CONTAINERS
) -> dict[str, Tensor]:
    """`tensors_in` what `read_file` gave.

    Raises:
        ValueError: there are none.
    """
    tensors = tensors_in(content, containers)
    if not tensors:
        held = ', '.join(map(str, list(content)[:8])) if isinstance(content, Mapping) else ''
        raise ValueError(
            f'The checkpoint {source} ({key}) holds no weights: expected tensors by name, at the '
            f'top or under {", ".join(containers)}; found {held or type(content).__name__}.'
        )
    return tensors


def without_wrapper(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without DDP's ``module.`` in front of their names, as MMEngine takes them."""
    return {name.removeprefix('module.'): value for name, value in tensors.items()}


def under_prefix(
    tensors: Mapping[str, Tensor], prefix: str, *, source: str, key: str
) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix (with its dot), without it.

    Raises:
        ValueError: there are none.
    """
    found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    if not found:
        held = Counter(name.split('.')[0] for name in tensors).most_common(6)
        shown = ', '.join(f'{name} ({count})' for name, count in held) or 'none at all'
        raise ValueError(f"{source} holds no weights under '{prefix}' ({key}); it holds {shown}.")
    return found


def resolve(source: str) -> str:
    """The address behind the MMEngine's short names; other sources as they are."""
    scheme, _, name = source.partition('://')
    if scheme in ('torchvision', 'modelzoo'):
        return get_torchvision_models().get(name, source)
    if scheme in ('open-mmlab', 'openmmlab'):
        name = get_deprecated_model_names().get(name, name)
        return get_external_models().get(name, source)
    return source


def register_reader(*, trusted: bool = False, own: Collection[Path] = ()) -> None:
    """Makes MMEngine read checkpoints by `read_file`.

    ``--resume``, ``load_from``, ``init_cfg`` and testing all go through its ``CheckpointLoader``,
    whose own readers run code where a file asks for it. Of a training checkpoint it gets no
    ``meta.config``, which it parses as Python when it resumes, and of files outside ``own`` not
    the names of checkpoints that it would delete.

    Args:
        trusted: allow files to run pickled code if they cannot be read without.
        own: folders of the run's own checkpoints.
    """

    def load_from_plain_file(filename: str, map_location: Any = None) -> Any:
        key = 'CHECKPOINT, --resume, config key load_from or init_cfg.checkpoint'
        with local_file(filename, key=key) as path:
            content = read_file(path, key=key, trusted=trusted, map_location=map_location)
            if isinstance(content, dict):
                _leave_out(content, path, own)
        return content

    # each scheme's own reader unpickles by itself, so that all of them are replaced
    schemes = list(CheckpointLoader._schemes)
    CheckpointLoader.register_scheme(schemes, load_from_plain_file, force=True)


def _leave_out(content: dict, path: Path, own: Collection[Path]) -> None:
    """Takes away what `register_reader` says, in place."""
    meta, hub = content.get('meta'), content.get('message_hub')
    if isinstance(meta, dict):
        meta.pop('config', None)
    info = hub.get('runtime_info') if isinstance(hub, dict) else None
    if not isinstance(info, dict):
        return
    is_own = path.parent.resolve() in {folder.resolve() for folder in own}
    if not is_own:
        info.pop('keep_ckpt_ids', None)
    for key in [key for key in info if str(key).startswith('best_ckpt')]:
        # the path is that of the time of writing, and the folder may have been moved or copied
        name = info[key] if isinstance(info[key], str) else ''
        best = path.with_name(f'best_{name.rpartition("/best_")[2]}')
        if is_own and '/best_' in name and best.is_file():
            info[key] = str(best)
        else:
            del info[key]


def cached(url: str) -> Path:
    """Where torch.hub's cache keeps the file of a URL; it need not be there yet."""
    return Path(torch.hub.get_dir()) / 'checkpoints' / Path(urlparse(url).path).name


def _downloaded(url: str, key: str) -> Path:
    """The URL's file in torch.hub's cache; the main process fetches, the others wait."""
    path = cached(url)
    try:
        if is_main_process():
            _fetch(url, path, key)
    finally:
        barrier()
    _fetch(url, path, key)  # other nodes have a disk of their own
    return path


def _fetch(url: str, path: Path, key: str) -> None:
    if path.exists():
        return
    digest = _HASH.search(path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    MMLogger.get_current_instance().info(f'Downloading {url} to {path}.')
    advice = f'download it on a machine with access, and give its path ({key})'
    try:
        torch.hub.download_url_to_file(url, str(path), digest and digest.group(1))
    except OSError as error:  # URLError is one
        raise FileNotFoundError(f'Could not download {url} ({error}): {advice}.') from error
    except RuntimeError as error:
        raise CheckpointError(
            f'The download of {url} is damaged ({error}): start again, or {advice}.'
        ) from error
