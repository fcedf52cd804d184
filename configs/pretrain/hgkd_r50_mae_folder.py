"""The flagship on a custom folder of images, without labels.

Reproduces: no row of the paper; the method and schedule of hgkd_r50_mae.py on other images.
Run:        bash tools/dist_train.sh configs/pretrain/hgkd_r50_mae_folder.py 8 \
                --cfg-options train_dataloader.dataset.data_root=DIR
Data:       images at any depth below DIR; formats: configs/_base_/datasets/folder_pretrain.py. 300
            epochs are meant for a million images; docs/pretraining.md describes how to change them.
Hardware:   8 GPUs with bfloat16, 256 images each; other numbers of GPUs with --auto-scale-lr.
Time:       not run.
Metric:     not run. There are no labels, so no kNN.
"""

_base_ = [
    '../_base_/models/hgkd_r50_mae.py',
    '../_base_/datasets/folder_pretrain.py',
    '../_base_/schedules/lamb_300e.py',
    '../_base_/default_runtime.py',
]

train_dataloader = dict(batch_size=256, num_workers=8)
