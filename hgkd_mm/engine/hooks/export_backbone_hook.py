"""Keep an exported backbone beside each checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.dist import master_only
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from hgkd_mm.evaluation import isolated_rng
from hgkd_mm.export import PretrainedBackbone, Provenance, convert, export_backbone
from hgkd_mm.export.files import SUFFIXES, check_output
from hgkd_mm.export.network import describe_backbone
from hgkd_mm.export.source import backbone_weights
from hgkd_mm.utils.files import is_remote, sha256_of

from .base import trained_model


# in mmengine's own registry, so that configs of every scope (mmpretrain, mmdet, mmseg) find it
@HOOKS.register_module()
class ExportBackboneHook(Hook):
    """Write ``backbone_<target>_<checkpoint>`` whenever ``CheckpointHook`` writes a checkpoint.

    So at its interval, at the end, and for the best one; and the export goes when its checkpoint
    does (``max_keep_ckpts``). The main process writes, each file whole or not at all. Weights
    and metadata are those of ``tools/export_backbone.py``. Whether the target has the network is
    tried before training; a full disk later is logged and does not stop the run.

    Args:
        target: 'mmpretrain', 'mmdet', 'timm' or 'torchvision'.
        suffix: of the files. Default: '.safetensors' for timm and torchvision, else '.pth'.

    Raises:
        ValueError: The target or suffix does not exist; before training: the target does not
            have the network, or there is no ``CheckpointHook`` that writes to a local folder.
    """

    priority = 'LOWEST'  # after CheckpointHook

    def __init__(self, *, target: str = 'mmpretrain', suffix: str | None = None) -> None:
        targets = [name for name in SUFFIXES if name != 'onnx']
        if target not in targets:
            raise ValueError(
                f'ExportBackboneHook.target is one of {", ".join(targets)}, and not {target!r}; '
                'ONNX is written by tools/export_backbone.py.'
            )
        self.target = target
        self.suffix = SUFFIXES[target][0] if suffix is None else suffix
        check_output(Path(f'backbone{self.suffix}'), target)
        self._model: Mapping[str, Any] = {}
        # What CheckpointHook has just saved, until the end of the same stage of the loop.
        self._saved: Mapping[str, Any] | None = None
        # Checkpoint to its export, with the time that the checkpoint was written.
        self._exports: dict[Path, tuple[Path, int]] = {}

    def before_train(self, runner: Runner) -> None:
        """Try the export, and take over what an earlier part of the run exported."""
        config = runner.cfg.get('model')
        if not isinstance(config, Mapping) or not isinstance(config.get('backbone'), Mapping):
            raise ValueError(
                'ExportBackboneHook needs the config of the network, and the run has no '
                'model.backbone: start it from a config, or drop the hook.'
            )
        self._model = config.to_dict()
        folders = {str(hook.out_dir) for hook in runner.hooks if isinstance(hook, CheckpointHook)}
        if not folders or any(map(is_remote, folders)):
            raise ValueError(
                'ExportBackboneHook writes beside the files of CheckpointHook in a local folder, '
                f'and there is {", ".join(folders) or "no CheckpointHook"} '
                '(config key default_hooks.checkpoint.out_dir).'
            )
        model = trained_model(runner)
        try:
            with isolated_rng():
                convert(self._backbone(model.state_dict(), Path('none'), {}, ''), self.target)
        except ValueError as error:
            raise ValueError(f"ExportBackboneHook(target='{self.target}'): {error}") from error
        self._adopt(folders)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep hold of what is saved; other hooks have had their say by now."""
        self._saved = {'meta': checkpoint['meta'], 'state_dict': checkpoint['state_dict']}

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Follow a ``CheckpointHook`` that counts iterations."""
        self._follow(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Follow a ``CheckpointHook`` that counts epochs."""
        self._follow(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Follow ``save_best``."""
        self._follow(runner)

    @master_only
    def _adopt(self, folders: set[str]) -> None:
        for folder in map(Path, folders):
            for checkpoint in folder.iterdir() if folder.is_dir() else ():
                export = self._export_path(checkpoint)
                if export.is_file():
                    self._exports[checkpoint] = export, checkpoint.stat().st_mtime_ns

    @master_only
    def _follow(self, runner: Runner) -> None:
        saved, self._saved = self._saved, None
        if saved is None:
            return
        for checkpoint in _latest(runner):
            if not checkpoint.is_file():
                continue
            written = checkpoint.stat().st_mtime_ns
            if self._exports.get(checkpoint, (None, None))[1] != written:
                self._export(runner, checkpoint, saved)
                self._exports[checkpoint] = self._export_path(checkpoint), written
        for checkpoint, (export, _) in list(self._exports.items()):
            if not checkpoint.exists():
                export.unlink(missing_ok=True)
                del self._exports[checkpoint]

    def _export(self, runner: Runner, checkpoint: Path, saved: Mapping[str, Any]) -> None:
        out = self._export_path(checkpoint)
        try:
            backbone = self._backbone(
                saved['state_dict'], checkpoint, saved['meta'], sha256_of(checkpoint)
            )
            with isolated_rng():
                export_backbone(backbone, target=self.target, out=out)
        except OSError as error:
            runner.logger.error(f'The backbone of {checkpoint} was not exported: {error}.')
        else:
            runner.logger.info(f'The backbone of {checkpoint.name} for {self.target} is in {out}.')

    def _backbone(
        self, state: Mapping[str, Tensor], checkpoint: Path, meta: Mapping[str, Any], digest: str
    ) -> PretrainedBackbone:
        tensors = {name: value.detach().cpu() for name, value in state.items()}
        return PretrainedBackbone(
            weights=backbone_weights(tensors, 'the model of this run'),
            config=describe_backbone(self._model['backbone'], trusted=True),
            provenance=Provenance.of_run(
                source=checkpoint.name, sha256=digest, model=self._model, meta=meta
            ),
        )

    def _export_path(self, checkpoint: Path) -> Path:
        name = f'backbone_{self.target}_{checkpoint.stem}{self.suffix}'
        return checkpoint.with_name(name)


def _latest(runner: Runner) -> Iterator[Path]:
    """Where ``CheckpointHook`` wrote last, and where the best ones are."""
    for name, value in runner.message_hub.runtime_info.items():
        if name == 'last_ckpt' or name.startswith('best_ckpt'):
            yield Path(str(value))
