"""Ablation of the objective on Scenes: pixels, L_feat, L_sim, second teacher, relations.

Run: python tools/ablate.py configs/_base_/ablations/r18_scenes.py --seeds 0 1 2
Each variant is a config with overrides; all must take the same number of steps and the same batch
size. The second teacher was trained with the labels of Scenes (assets/README.md), so its rows are
not label-free, except the one with MoCo v3.
"""

_hgkd = 'configs/pretrain/hgkd_r18_scenes.py'
_hybrid = 'configs/pretrain/hybrid-hgkd_r18_scenes.py'
_moco = 'assets/moco_scenes.safetensors'
_one_teacher = {'model.heads.cl_feat': None, 'model.heads.cl_sim': None}

variants = [
    dict(name='pixel baseline (SparK)', config='configs/pretrain/spark_r18_scenes.py'),
    dict(name='L_feat', config=_hgkd, options={'model.heads.sim': None}),
    dict(name='L_sim', config=_hgkd, options={'model.heads.feat': None}),
    dict(name='L_feat + L_sim (H-GKD)', config=_hgkd),
    dict(name='+ second teacher', config=_hybrid, options={'model.heads.relation': None}),
    dict(
        name='+ second teacher, no labels',
        config=_hybrid,
        options={'model.heads.relation': None, 'model.teachers.cl.checkpoint': _moco},
    ),
    dict(name='+ relations, one teacher', config=_hybrid, options=_one_teacher),
    dict(name='+ second teacher + relations', config=_hybrid),
]
