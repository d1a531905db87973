"""Keep the small part of a training run and of its report beside the experiments: python experiments/keep.py RUN_DIR

Kept are the configs and manifests, p of every question after every iteration, the numbers of the report and two
pictures of each arm; weights, checkpoints, completions and the report itself are left behind.
"""

import json
import shutil
import sys
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
OF_THE_RUN = ("config.toml", "manifest.json", "validation/summary.json")
OF_AN_ARM = ("manifest.json", "questions.parquet", "success.parquet")
PICTURES = ("trajectories", "p_infinity")


def keep(run: Path, out: Path = RESULTS) -> Path:
    """Copy what is kept of a finished and validated run into a folder of its name, in place of what was there."""
    arms = json.loads((run / "manifest.json").read_bytes())["arms"]
    files = [*OF_THE_RUN, *(f"{arm}/{name}" for arm in arms for name in OF_AN_ARM)]
    pictures = [f"validation/figures/{arm}_{picture}.png" for arm in arms for picture in PICTURES]
    missing = [name for name in (*files, *pictures) if not (run / name).exists()]
    if missing:
        wanted = "the folder of a finished run after `validate`"
        raise SystemExit(f"error: run must be {wanted}, got {run} without {missing[0]}")
    folder = out / run.name
    shutil.rmtree(folder, ignore_errors=True)
    for name in (*files, *pictures):
        target = folder / name.removeprefix("validation/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run / name, target)
    return folder


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python experiments/keep.py RUN_DIR")
    print(keep(Path(sys.argv[1])))
