"""Keep an exported backbone beside each checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.dist import master_only
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from hgkd_mm.evaluation import isolated_rng
from hgkd_mm.utils.files import is_remote, sha256_of
from hgkd_mm.weights.reading import CheckpointError, read_file, tensors_in

from .export import SUFFIXES, check_output, convert, export_backbone
from .source import PretrainedBackbone, backbone_of


# in mmengine's own registry, so that configs of every scope (mmpretrain, mmdet, mmseg) find it
@HOOKS.register_module()
class ExportBackboneHook(Hook):
    """Write ``backbone_<target>_<checkpoint>`` whenever ``CheckpointHook`` writes a checkpoint.

    So at its interval, at the end, and for the best one; and the export goes when its checkpoint
    does (``max_keep_ckpts``). The main process writes, each file whole or not at all. Weights
    and metadata are those of ``tools/export_backbone.py``. Whether the target has the network is
    tried before training; a full disk later is logged and does not stop the run.

    Args:
        target: 'mmpretrain', 'timm' or 'torchvision'.
        suffix: of the files. Default: '.safetensors' for timm and torchvision, else '.pth'.

    Raises:
        ValueError: The target or suffix does not exist; before training: the target does not
            have the network, or there is no ``CheckpointHook`` that writes to a local folder.
    """

    priority = 'LOWEST'  # after CheckpointHook

    def __init__(self, *, target: str = 'mmpretrain', suffix: str | None = None) -> None:
        self.target = target
        self.suffix = suffix or SUFFIXES.get(target, ('',))[0]
        check_output(Path(f'backbone{self.suffix}'), target)
        if target == 'onnx':
            raise ValueError(
                "ExportBackboneHook.target is 'onnx', which tools/export_backbone.py writes."
            )
        self._model: Mapping[str, Any] = {}
        # whether a checkpoint was saved since the hook looked for one
        self._due = False
        # checkpoints that have an export
        self._exported: set[Path] = set()

    def before_train(self, runner: Runner) -> None:
        """Try the export, and take over what an earlier part of the run exported."""
        self._model = runner.cfg.to_dict().get('model')
        folders = {str(hook.out_dir) for hook in runner.hooks if isinstance(hook, CheckpointHook)}
        if not folders or any(map(is_remote, folders)):
            raise ValueError(
                'ExportBackboneHook writes beside the files of CheckpointHook in a local folder, '
                f'and there is {", ".join(folders) or "no CheckpointHook"} '
                '(config key default_hooks.checkpoint.out_dir).'
            )
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        with isolated_rng():
            trial = self._backbone({'state_dict': model.state_dict()}, Path(runner.work_dir), '')
            convert(trial, self.target)
        for folder in map(Path, folders):
            files = folder.iterdir() if folder.is_dir() else ()
            self._exported |= {path for path in files if self._export_path(path).is_file()}

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Note that there will be a new file."""
        self._due = True

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Follow a ``CheckpointHook`` that counts iterations."""
        self._follow(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Follow a ``CheckpointHook`` that counts epochs."""
        self._follow(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Follow ``save_best``."""
        self._follow(runner)

    @master_only
    def _follow(self, runner: Runner) -> None:
        if not self._due:
            return
        self._due = False
        for name, value in runner.message_hub.runtime_info.items():
            checkpoint = Path(str(value))
            is_latest = name == 'last_ckpt' or name.startswith('best_ckpt')
            if is_latest and checkpoint.is_file() and not self._is_exported(checkpoint):
                self._export(runner, checkpoint)
                self._exported.add(checkpoint)
        for checkpoint in [path for path in self._exported if not path.exists()]:
            self._export_path(checkpoint).unlink(missing_ok=True)
            self._exported.remove(checkpoint)

    def _is_exported(self, checkpoint: Path) -> bool:
        export = self._export_path(checkpoint)
        return export.is_file() and export.stat().st_mtime_ns >= checkpoint.stat().st_mtime_ns

    def _export(self, runner: Runner, checkpoint: Path) -> None:
        out = self._export_path(checkpoint)
        try:
            backbone = self._backbone(
                read_file(checkpoint, trusted=True), checkpoint, sha256_of(checkpoint)
            )
            with isolated_rng():
                export_backbone(backbone, target=self.target, out=out)
        except (OSError, CheckpointError) as error:
            runner.logger.error(f'The backbone of {checkpoint} was not exported: {error}.')
        else:
            runner.logger.info(f'The backbone of {checkpoint.name} for {self.target} is in {out}.')

    def _backbone(
        self, content: Mapping[str, Any], checkpoint: Path, sha256: str
    ) -> PretrainedBackbone:
        return backbone_of(
            tensors_in(content),
            self._model,
            content.get('meta', {}),
            checkpoint=checkpoint,
            sha256=sha256,
            trusted=True,
        )

    def _export_path(self, checkpoint: Path) -> Path:
        return checkpoint.with_name(f'backbone_{self.target}_{checkpoint.stem}{self.suffix}')
