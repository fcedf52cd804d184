"""Trains a model from a config, on one device or under a launcher.

    python tools/train.py configs/pretrain/hgkd_r50_mae.py --amp --work-dir work_dirs/r50

For several processes use tools/dist_train.sh or tools/slurm_train.sh.
"""

from hgkd_mm.train import main

if __name__ == '__main__':
    main()
