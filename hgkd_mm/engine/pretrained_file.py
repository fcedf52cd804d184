"""A file that weights are taken from, as MMEngine takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from mmengine.runner import CheckpointLoader
from torch import Tensor

from hgkd_mm.utils.checkpoint_file import under_prefix
from hgkd_mm.utils.files import is_remote
from hgkd_mm.utils.weights_fit import listed


@dataclass(frozen=True, kw_only=True)
class PretrainedFile:
    """What a config says of a file of ``init_cfg`` or ``load_from``.

    Attributes:
        checkpoint: path, or an address that MMEngine knows.
        prefix: of the names of the weights that are wanted; None takes all.
        key: config key that names the file.
    """

    checkpoint: str
    prefix: str | None
    key: str

    @property
    def prefix_key(self) -> str:
        """Config key of the prefix."""
        return f'{self.key.removesuffix(".checkpoint")}.prefix'

    def read(self) -> dict[str, Tensor]:
        """Opens the file as MMEngine does, and picks the weights.

        With all addresses that MMEngine knows; for those of the web every rank has to take part.

        Raises:
            FileNotFoundError: there is no such file.
            RuntimeError: it cannot be read.
            ValueError: see `pick`.
        """
        self.check_kind()
        start = self._start
        if not is_remote(self.checkpoint) and not Path(self.checkpoint).expanduser().is_file():
            raise FileNotFoundError(
                f'There is no file {self.checkpoint} for {start} to start from (config key '
                f'{self.key}; relative paths start at {Path.cwd()}). To start from random '
                f'weights, take the config whose name ends in _scratch, or leave {start}.init_cfg '
                'out: with None the network would not even initialise itself.'
            )
        try:
            content = CheckpointLoader.load_checkpoint(
                self.checkpoint, map_location='cpu', logger='silent'
            )
        except Exception as error:  # a damaged file can trip the reader in any way
            reason = str(error).strip().split('\n')[0] or type(error).__name__
            raise RuntimeError(
                f'{self.checkpoint}, from which {start} is to start, cannot be read ({reason}; '
                f'config key {self.key}).'
            ) from error
        return self.pick(content)

    def check_kind(self) -> None:
        """Refuses a kind of file that MMEngine does not read.

        Raises:
            ValueError: the file is a ``.safetensors``.
        """
        if urlparse(self.checkpoint).path.endswith('.safetensors'):
            raise ValueError(
                f'{self.checkpoint} is a .safetensors file, and MMEngine reads those of torch.save '
                f'only: save its weights with torch.save, and name that file in the config key '
                f'{self.key} (tools/export_backbone.py --to mmpretrain writes such a file).'
            )

    def pick(self, content: Any) -> dict[str, Tensor]:
        """The weights that MMEngine takes of what the file holds, in the naming of the module.

        Args:
            content: of the file.

        Raises:
            ValueError: there are none at the top or under ``state_dict``, or none under the
                prefix.
        """
        tensors = tensors_in(content)
        if not tensors:
            held = list(map(str, content)) if isinstance(content, Mapping) else []
            raise ValueError(
                f'{self.checkpoint} holds no weights at the top or under state_dict, where '
                f'MMEngine looks for them{listed(held, "; it holds {}")}: save them there with '
                f'torch.save, or change the config key {self.key}.'
            )
        if self.prefix is None:
            return without_wrapper(tensors)
        return under_prefix(
            tensors,
            self.prefix if self.prefix.endswith('.') else f'{self.prefix}.',
            source=self.checkpoint,
            why=f'from which {self._start} is to start (config key {self.prefix_key})',
        )

    @property
    def _start(self) -> str:
        return self.key.partition('.init_cfg')[0]


def tensors_in(content: Any) -> dict[str, Tensor]:
    """Name to tensor where MMEngine looks: under ``state_dict``, or at the top without it."""
    state = content.get('state_dict', content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        return {}
    return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}


def without_wrapper(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without DDP's ``module.``, as MMEngine takes a file where no prefix is asked for."""
    return {name.removeprefix('module.'): value for name, value in tensors.items()}
