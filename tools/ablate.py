"""What each part of a pre-training is worth: variants at equal steps and seeds, as one table.

python tools/ablate.py configs/_base_/ablations/r18_scenes.py --seeds 0 1 2
"""

import sys
from pathlib import Path

# Below the guard, so that the processes that draw Scenes do not import torch.
if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from hgkd_mm.experiments.ablation import main

    main()
