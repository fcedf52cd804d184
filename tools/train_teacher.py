"""Trains a small teacher: the quickstart's MAE, from nothing; from it, a ViT by labels or MoCo v3.

python tools/train_teacher.py                     # work_dirs/teacher-mae/mae_scenes.safetensors
python tools/train_teacher.py --kind supervised   # by Scenes' labels; work_dirs/teacher-supervised
python tools/train_teacher.py --kind contrastive  # MoCo v3; work_dirs/teacher-contrastive
python tools/train_teacher.py --data DIR --work-dir work_dirs/my_teacher
"""

import sys
from pathlib import Path

# Below the guard, so that the processes that draw Scenes do not import torch.
if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from hgkd_mm.experiments.teacher import main

    main()
