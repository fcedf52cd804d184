"""The transfer table over several seeds, pre-training included; finished runs are not repeated.

python tools/transfer_table.py --seeds 0 1 2 --length 1.5
"""

import sys
from pathlib import Path

# Below the guard, so that the processes that draw Scenes do not import torch.
if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from hgkd_mm.experiments.transfer import main

    main()
