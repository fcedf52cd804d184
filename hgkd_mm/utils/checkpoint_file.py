"""Reading weight files without running what they contain."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
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

from .files import is_remote
from .plain_pickle import CodeInFileError, load_plain

# What networks of mmpretrain, mmdet and mmseg begin the names of their backbone's weights with.
BACKBONE = 'backbone.'
# What addresses begin with for which MMEngine has a reader, each of which unpickles by itself.
_SCHEMES = (
    '',
    'http://',
    'https://',
    'mmcls://',
    'modelzoo://',
    'open-mmlab://',
    'openmmlab://',
    'pavi://',
    r'(\S+\:)?petrel://',
    r'(\S+\:)?s3://',
    'torchvision://',
)
_CONTAINERS = ('state_dict', 'model', 'module')
_HASH = re.compile(r'-([a-f0-9]{8,})\.')


# with it torch refuses the module that unpickles for it
_FORCED = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'


class CheckpointError(RuntimeError):
    """A weight file cannot be used."""


class UntrustedCheckpointError(CheckpointError):
    """A weight file wants to run code and is not trusted."""


@dataclass(frozen=True, kw_only=True)
class Wording:
    """How the messages name the file, so that they point to what their reader can change.

    Attributes:
        kind: 'checkpoint', 'teacher checkpoint'.
        given_by: the config key or argument that names the file.
        trust: the setting that allows the file to run code.
        where: where that setting goes, '' if this needs no saying.
    """

    kind: str
    given_by: str
    trust: str
    where: str = ''


CHECKPOINT = Wording(
    kind='checkpoint',
    given_by='argument CHECKPOINT, --resume, or config key load_from or init_cfg.checkpoint',
    trust='the flag --trust-checkpoint',
)


@contextmanager
def local_file(source: str, wording: Wording) -> Iterator[Path]:
    """The file on this machine's disk.

    Args:
        source: path, ``http(s)://`` URL (kept in torch.hub's cache), ``torchvision://`` and
            ``open-mmlab://`` names, or any address that MMEngine's file backends read.
        wording: for messages.

    Raises:
        FileNotFoundError: there is no such file, or it could not be downloaded.
        RuntimeError: the download is damaged.
    """
    address = resolve(source)
    if address.startswith(('mmcls://', 'pavi://')):
        raise FileNotFoundError(
            f"The {wording.kind} {source} is no address that is read here: give the file's path "
            f'or https:// address ({wording.given_by}).'
        )
    if urlparse(address).scheme in ('http', 'https'):
        yield _downloaded(address, wording)
    elif is_remote(address):
        with get_local_path(address) as path:
            yield Path(path)
    else:
        path = Path(address).expanduser()
        if not path.is_file():
            raise FileNotFoundError(
                f'There is no {wording.kind} at {path} ({wording.given_by}; relative paths start '
                f'at {Path.cwd()}).'
            )
        yield path


def read_file(
    path: Path, source: str, wording: Wording, *, trusted: bool = False, map_location: Any = 'cpu'
) -> Any:
    """What a ``.safetensors`` file or a file of ``torch.save`` holds.

    Of a pickled file tensors and plain values, MMEngine's log buffers among them, by
    :func:`load_plain`, which runs nothing from the file.

    Args:
        path: the file.
        source: how messages name it.
        wording: for messages.
        trusted: allow the file to run pickled code if it cannot be read without.
        map_location: where the tensors go, as in ``torch.load``.

    Raises:
        UntrustedCheckpointError: the file wants to run code and is not trusted.
        CheckpointError: it is broken.
        OSError: the disk does not give it.
    """
    forced = os.environ.get(_FORCED, '')
    try:
        if path.suffix == '.safetensors':
            return load_file(str(path))
        if forced.lower() in ('1', 'y', 'yes', 'true'):
            raise CheckpointError(
                f'{_FORCED}={forced} keeps torch from reading {source} in any way but its own: '
                'unset it; files are read without running code here in any case.'
            )
        return load_plain(path, map_location)
    except (OSError, MemoryError, CheckpointError):
        raise
    except CodeInFileError as error:
        if not trusted:
            where = f' {wording.where}' if wording.where else ''
            raise UntrustedCheckpointError(
                f'The checkpoint {source} holds more than tensors and plain values ({error}), and '
                f'reading it would run code from the file. If you trust where it comes from, set '
                f'{wording.trust}{where}; otherwise save its weights as .safetensors.'
            ) from error
        MMLogger.get_current_instance().warning(
            f'Running pickled code of {source}, as {wording.trust} allows.'
        )
        try:
            return torch.load(path, map_location=map_location, weights_only=False)
        except Exception as error:
            raise CheckpointError(_broken(source, error, wording)) from error
    except Exception as error:  # a damaged file can trip the reader in any way
        raise CheckpointError(_broken(source, error, wording)) from error


def find_tensors(content: Any, source: str) -> dict[str, Tensor]:
    """Name to tensor in what `read_file` gave.

    From ``state_dict``, ``model`` or ``module`` if the file has one of these, else from its top
    level. A leading ``module.`` of DDP is removed.

    Raises:
        ValueError: the file holds no tensors.
    """
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


def read_tensors(source: str, wording: Wording, *, trusted: bool = False) -> dict[str, Tensor]:
    """Name to tensor in a file; see `local_file`, `read_file` and `find_tensors`.

    Args:
        source: path or address.
        wording: for messages.
        trusted: allow the file to run pickled code if it cannot be read without.

    Raises:
        FileNotFoundError: there is no such file, or it could not be downloaded.
        CheckpointError: the file is broken, or wants to run code and is not trusted.
        ValueError: it holds no tensors.
    """
    with local_file(source, wording) as path:
        content = read_file(path, source, wording, trusted=trusted)
    return find_tensors(content, source)


def under_prefix(
    tensors: Mapping[str, Tensor], prefix: str, *, source: str, why: str
) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, without it.

    Args:
        tensors: name to tensor.
        prefix: with its dot.
        source: where they come from, for messages.
        why: the clause that says who expects the prefix, for messages.

    Raises:
        ValueError: there are none; says what there is instead.
    """
    found = {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
    if not found:
        held = Counter(name.split('.')[0] for name in tensors).most_common(6)
        shown = ', '.join(f'{name} ({count})' for name, count in held) or 'none at all'
        raise ValueError(f"{source} holds no weights under '{prefix}', {why}; it holds {shown}.")
    return found


def resolve(source: str) -> str:
    """The address behind the short names that MMEngine knows; other sources as they are."""
    scheme, _, name = source.partition('://')
    if scheme in ('torchvision', 'modelzoo'):
        return get_torchvision_models().get(name, source)
    if scheme in ('open-mmlab', 'openmmlab'):
        name = get_deprecated_model_names().get(name, name)
        return get_external_models().get(name, source)
    return source


def register_reader(*, trusted: bool = False, own: Collection[Path] = ()) -> None:
    """Makes MMEngine read checkpoints by `read_file`.

    ``--resume``, ``load_from``, ``init_cfg`` of type 'Pretrained' and testing all go through
    MMEngine's ``CheckpointLoader``, whose own readers run code where a file asks for it. Of a
    training checkpoint it gets no ``meta.config``, which it parses as Python when it resumes, and
    of files outside ``own`` not the names of checkpoints that it would delete.

    Args:
        trusted: allow files to run pickled code if they cannot be read without.
        own: folders of the run's own checkpoints.
    """

    def load_from_plain_file(filename: str, map_location: Any = None) -> Any:
        with local_file(filename, CHECKPOINT) as path:
            content = read_file(
                path, filename, CHECKPOINT, trusted=trusted, map_location=map_location
            )
            if isinstance(content, dict):
                _leave_out(content, path, own)
        return content

    CheckpointLoader.register_scheme(_SCHEMES, load_from_plain_file, force=True)


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


def _downloaded(url: str, wording: Wording) -> Path:
    """The URL's file in torch.hub's cache; the main process fetches, the others wait."""
    path = cached(url)
    try:
        if is_main_process():
            _fetch(url, path, wording)
    finally:
        barrier()
    _fetch(url, path, wording)  # other nodes have a disk of their own
    return path


def _fetch(url: str, path: Path, wording: Wording) -> None:
    if path.exists():
        return
    digest = _HASH.search(path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    MMLogger.get_current_instance().info(f'Downloading {url} to {path}.')
    try:
        torch.hub.download_url_to_file(url, str(path), digest and digest.group(1))
    except (URLError, OSError) as error:
        raise FileNotFoundError(
            f'Could not download the {wording.kind} {url} ({error}). Download it on a '
            f'machine with access and give its path ({wording.given_by}).'
        ) from error
    except RuntimeError as error:
        raise RuntimeError(
            f'The download of {url} is damaged ({error}). Start again, or download it by hand '
            f'and give its path ({wording.given_by}).'
        ) from error


def _broken(source: str, error: Exception, wording: Wording) -> str:
    reason = str(error).strip().split('\n')[0] or type(error).__name__
    return (
        f'The checkpoint {source} is not a readable weight file ({reason}). Delete it and '
        f'download or save it again ({wording.given_by}).'
    )
