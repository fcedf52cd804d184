"""From nothing to a distilled ResNet-18 on this machine; see tools/quickstart.sh.

python tools/quickstart.py                    # Scenes, the carried teacher, one epoch
python tools/quickstart.py --epochs 4         # as long as in the README's second table
python tools/quickstart.py --transfer         # and then classification, Mask R-CNN, UperNet
python tools/quickstart.py --data DIR         # pre-train on your own images
python tools/quickstart.py --train-teacher    # make the teacher anew as well
"""

import sys
from pathlib import Path

# Below the guard, so that the processes that draw Scenes do not import torch.
if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from hgkd_mm.experiments.quickstart import main

    main()
