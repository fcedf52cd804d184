"""Where an exported backbone comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hgkd_mm import __version__

from .network import short_name


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What is known of the run that a backbone comes from.

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
        """From a run's model config and the ``meta`` of its checkpoint.

        Args:
            source: name of the checkpoint file.
            sha256: of that file.
            model: config of the model, with its ``backbone``.
            meta: what MMEngine's Runner saved; every entry may be missing.
        """
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
        """What is written into every exported file: text only, as safetensors allows no other.

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
