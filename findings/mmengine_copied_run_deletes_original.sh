#!/usr/bin/env bash
# Guess: a run that is resumed from a copy of its work dir (moved to another disk, tried with other
#   settings) leaves the original alone.
# Behaviour: MMEngine's CheckpointHook with save_best keeps the absolute path of the best checkpoint
#   in the checkpoint itself. The resumed run reads it back, and when a better score comes, it
#   deletes the file of that path: in the original work dir. The copy's own best file stays.
# Versions: onedl-mmengine 0.10.12 (the same code as mmengine 0.10.7), torch 2.11.0, Python 3.11,
#   seen on 2026-11-27.
# Here: hgkd_mm/utils/work_dir.py lets a resumed run remove files of its own folder only.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
trap 'echo "NOT TRIED: a step before the question failed."; exit 2' ERR
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.11.0 numpy==2.2.6 addict==2.4.0 matplotlib==3.10.8 opencv-python-headless==4.11.0.86 \
  pyyaml==6.0.3 rich==14.3.4 termcolor==3.3.0 yapf==0.43.0 platformdirs==4.5.1 regex==2026.9.10
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps onedl-mmengine==0.10.12
cd "$work"
cat >run.py <<'PYTHON'
import sys
from pathlib import Path

import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel
from mmengine.runner import Runner


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, *images, mode='tensor'):
        y = self.layer(torch.stack(images))
        return {'loss': y.mean()} if mode == 'loss' else [y]


class Score(BaseMetric):
    """Better after every epoch."""

    score = 0

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        Score.score += 1
        return {'score': float(Score.score)}


def loader():
    sampler = dict(type='DefaultSampler', shuffle=False)
    return dict(batch_size=2, dataset=[torch.ones(1)] * 4, sampler=sampler)


folder, epochs, resume = Path(sys.argv[1]), int(sys.argv[2]), len(sys.argv) > 3
Score.score = epochs - 1 if resume else 0
Runner(
    Model(),
    work_dir=str(folder),
    train_dataloader=loader(),
    val_dataloader=loader(),
    train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=1),
    val_cfg=dict(),
    val_evaluator=Evaluator(Score()),
    optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
    default_hooks=dict(
        checkpoint=dict(type='CheckpointHook', interval=1, save_best='score', rule='greater')
    ),
    resume=resume,
    load_from=str(folder / f'epoch_{epochs - 1}.pth') if resume else None,
    log_level='ERROR',
).train()
PYTHON
"$work/venv/bin/python" -W ignore run.py "$work/original" 1 >log 2>&1 || { cat log; exit 2; }
best="$(cd original && ls best_*)"
cp -r original copy
echo "best checkpoint of the original: $best"
"$work/venv/bin/python" -W ignore run.py "$work/copy" 2 resume >log 2>&1 || { cat log; exit 2; }
echo "original after the copy was resumed: $(cd original && echo *.pth)"
echo "copy: $(cd copy && echo *.pth)"
if [[ -e "original/$best" ]]; then echo 'CHANGED: the original is as it was.'; exit 1; fi
echo 'As described: resuming the copy deleted the best checkpoint of the original.'
