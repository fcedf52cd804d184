"""What the files of exported backbones hold: weights, and where they come from."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from hgkd_mm import __version__

from .network import short_name

SUFFIXES = {
    'mmpretrain': ('.pth',),
    'mmdet': ('.pth',),
    'timm': ('.safetensors', '.pth'),
    'torchvision': ('.safetensors', '.pth'),
    'onnx': ('.onnx',),
}


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """The run that a backbone comes from.

    Attributes:
        source: name of the checkpoint file.
        sha256: of that file, hexadecimal.
        method: type of the pre-trained model, such as 'HGKD'.
        backbone: config of its backbone.
        images: ``mean``, ``std`` and ``to_rgb`` of its ``data_preprocessor``, as far as given.
        epoch: that the checkpoint was saved after; None if the file does not say.
        iteration: the same in iterations.
        experiment: MMEngine's name of the run, '' if the file does not say.
        config: text of the run's config, '' if there is none.
    """

    source: str
    sha256: str
    method: str
    backbone: Mapping[str, Any]
    images: Mapping[str, Any]
    epoch: int | None = None
    iteration: int | None = None
    experiment: str = ''
    config: str = ''

    @classmethod
    def of_run(
        cls, *, source: str, sha256: str, model: Mapping[str, Any], meta: Mapping[str, Any]
    ) -> Provenance:
        """From a run's model config and the ``meta`` of its checkpoint, which may lack entries."""
        preprocessor = model.get('data_preprocessor')
        known = preprocessor if isinstance(preprocessor, Mapping) else {}
        epoch, iteration = meta.get('epoch'), meta.get('iter')
        return cls(
            source=source,
            sha256=sha256,
            method=short_name(model.get('type', 'unknown')),
            backbone=model['backbone'],
            images={key: known[key] for key in ('mean', 'std', 'to_rgb') if key in known},
            epoch=epoch if isinstance(epoch, int) else None,
            iteration=iteration if isinstance(iteration, int) else None,
            experiment=str(meta.get('experiment_name') or ''),
            config=str(meta.get('cfg') or ''),
        )

    def metadata(self, *, target: str, network: str) -> dict[str, str]:
        """The metadata of an exported file: text only, as safetensors allows no other.

        Args:
            target: 'timm', 'torchvision', ...
            network: how the target's network is made, as Python.
        """
        values = {
            'hgkd_mm_version': __version__,
            'target': target,
            'network': network,
            'method': self.method,
            'source': self.source,
            'source_sha256': self.sha256,
            'epoch': '' if self.epoch is None else str(self.epoch),
            'iteration': '' if self.iteration is None else str(self.iteration),
            'experiment': self.experiment,
            'backbone': json.dumps(self.backbone, default=str),
            'images': json.dumps(self.images, default=str),
            'config': self.config,
        }
        return {key: value for key, value in values.items() if value}


def check_output(out: Path, target: str) -> None:
    """Refuses a file name that the target cannot read.

    Raises:
        ValueError: the suffix is not one of the target's.
        FileNotFoundError: there is no such folder.
    """
    suffixes = SUFFIXES[target]
    if out.suffix not in suffixes:
        reason = ' (MMEngine reads no other)' if suffixes == ('.pth',) else ''
        raise ValueError(
            f"The file for {target} ends in {' or '.join(suffixes)}{reason}, and OUT is '{out}'."
        )
    if not out.parent.is_dir():
        raise FileNotFoundError(f"There is no folder '{out.parent}' to write '{out.name}' into.")


def weights_bytes(weights: Mapping[str, Tensor], metadata: Mapping[str, str], suffix: str) -> bytes:
    """A weight file: ``.safetensors`` with metadata, else ``state_dict`` and ``meta`` of torch."""
    if suffix == '.safetensors':
        return save(dict(weights), metadata=dict(metadata))
    file = io.BytesIO()
    torch.save({'meta': dict(metadata), 'state_dict': dict(weights)}, file)
    return file.getvalue()
