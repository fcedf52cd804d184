"""SparK: ResNet-50 reconstructs pixels, no teacher. The flagship's baseline.

Reproduces: SparK (arXiv 2301.03580) on the engine, data and schedule of hgkd_r50_mae.py. Published
            ImageNet-1K top-1 after fine-tuning: 80.6 (official, 1600 epochs, decoder width 768)
            and 80.10 (mmpretrain, 800 epochs, width 512 as here); neither was run here.
Run:        bash tools/dist_train.sh configs/pretrain/spark_r50.py 8
Hardware:   8 GPUs with bfloat16, 256 images each.
Time:       not run.
Metric:     not run. Official SparK's loss at batch 4096 after epoch 1 to 4: 0.954, 0.801, 0.685,
            0.615.
"""

_base_ = './hgkd_r50_mae.py'

model = dict(
    neck=dict(out_stride=1),
    teachers=dict(_delete_=True),
    heads=dict(_delete_=True, pixel=dict(type='PixelReconstructionHead')),
)
