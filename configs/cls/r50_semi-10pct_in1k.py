"""ResNet-50 fine-tuned on 10 % of ImageNet-1K's labels, 20 epochs.

Reproduces: no known row. As r50_semi-1pct_in1k.py, on SimCLR's ten per cent; that Barlow Twins'
            values for one per cent serve here as well is inferred (docs/sources.md 4.2).
Run:        python tools/make_subset.py --list 10percent.txt
            bash tools/dist_train.sh configs/cls/r50_semi-10pct_in1k.py 8 --amp
Data:       data/imagenet/train and val, and meta/train_10pct.txt there by the first command.
Hardware:   8 GPUs, 32 images each.
Time:       not run.
Metric:     not run.
"""

_base_ = './r50_semi-1pct_in1k.py'

train_dataloader = dict(dataset=dict(ann_file='meta/train_10pct.txt'))
