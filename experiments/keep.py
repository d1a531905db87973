"""Keep the small part of a training run and of its report beside the experiments: python experiments/keep.py RUN_DIR

Kept are the configs and manifests, the success of every question after every iteration, the numbers of the report, and
pictures, in few colours: of the whole run, then of each arm, as far as there is room.
Weights, checkpoints, completions and the report itself are left behind. Of the table of success only those columns are
left out that follow from the log-odds where nothing was counted; the digest in the arm's manifest is that of the whole.
Of a script, as gpu_pretraining.py and gpu_throughput.py are, table, manifest and picture are kept, and no models.
"""

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import polars as pl

RESULTS = Path(__file__).parent / "results"
OF_THE_RUN = ("config.toml", "manifest.json", "validation/summary.json")
OF_AN_ARM = ("manifest.json", "questions.parquet", "success.parquet")
IF_THERE = ("validation/lengths.parquet",)
PICTURES_OF_THE_RUN = ("overview", "lengths")
PICTURES_OF_AN_ARM = ("single_questions", "p_infinity", "trajectories")
COLOURS = 128
SMALL, LARGE, PICTURES = 300_000, 3_500_000, 600_000
"""Bytes that a small form, a whole run, and its pictures may take: all results together stay below 20 MB."""


def keep(run: Path, out: Path = RESULTS) -> Path:
    """Put what is kept of a finished script, or run that was validated, into a folder of its name instead of the old.

    Args:
        run: the folder.
        out: of all results.
    """
    run = run.resolve()  # its name is that of the folder here: "." has none
    scripted = (run / f"{run.name}.json").is_file()
    smoke, files, pictures = _of_a_script(run) if scripted else _of_a_run(run)
    kept = {name: _small(run / name) for name in files}
    room = (SMALL if smoke else LARGE) - sum(map(len, kept.values()))
    if room < 0:
        raise SystemExit(
            f"error: run must be small enough to keep, got {run}, whose tables are {-room} bytes too large"
        )
    room = min(room, PICTURES)
    for name in pictures:
        data = _few_colours(run / name)
        if len(data) <= room:
            kept[name] = data
            room -= len(data)
    folder = out / run.name
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in kept.items():
        target = folder / name.removeprefix("validation/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return folder


def _of_a_script(run: Path) -> tuple[bool, list[str], list[str]]:
    """Whether it is a small form, its manifest and table, and its picture."""
    wanted = "the folder of a script that has finished"
    manifest, table, picture = (f"{run.name}.{ending}" for ending in ("json", "parquet", "png"))
    if missing := [name for name in (table, picture) if not (run / name).is_file()]:
        raise SystemExit(f"error: run must be {wanted}, got {run} without {missing[0]}")
    told = _json(run / manifest, wanted)
    if not isinstance(told, dict) or not isinstance(told.get("config"), dict):
        raise SystemExit(f"error: run must be {wanted}, got {run}, whose {manifest} has no config")
    return bool(told["config"].get("smoke")), [manifest, table], [picture]


def _of_a_run(run: Path) -> tuple[bool, list[str], list[str]]:
    """Whether it is a small form, the files that are kept whatever room there is, and its pictures."""
    wanted = "the folder of a finished run after `validate`"
    if not (run / "manifest.json").is_file():
        raise SystemExit(f"error: run must be {wanted}, or of a finished script, got {run} without manifest.json")
    manifest = _json(run / "manifest.json", wanted)
    if not isinstance(manifest, dict) or not {"status", "arms"} <= manifest.keys():
        raise SystemExit(f"error: run must be {wanted}, not of one of its arms, got {run}")
    if manifest["status"] != "finished":
        raise SystemExit(f"error: run must be {wanted}, got {run}, which is {manifest['status']}")
    files = [*OF_THE_RUN, *(f"{arm}/{name}" for arm in manifest["arms"] for name in OF_AN_ARM)]
    missing = [name for name in files if not (run / name).exists()]
    if missing:
        raise SystemExit(f"error: run must be {wanted}, got {run} without {missing[0]}")
    files += [name for name in IF_THERE if (run / name).exists()]
    return bool(manifest.get("smoke")), files, _pictures(run)


def _json(path: Path, wanted: str) -> Any:
    """What a file of JSON says."""
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        raise SystemExit(f"error: run must be {wanted}, got {path.parent}, whose {path.name} is no JSON") from None


def _pictures(run: Path) -> list[str]:
    """Those that the report has, the most telling first: of all arms, then of those with the widest intervals."""
    arms = json.loads((run / "validation/summary.json").read_bytes())["arms"]
    widest = sorted(arms, key=lambda arm: -((arm.get("interval") or {}).get("width") or 0.0))
    named = [f"{arm['arm']}_{picture}" for picture in PICTURES_OF_AN_ARM for arm in widest]
    paths = [f"validation/figures/{name}.png" for name in (*PICTURES_OF_THE_RUN, *named)]
    return [path for path in paths if (run / path).exists()]


def _small(path: Path) -> bytes:
    """The bytes of a file; of a table of success without what follows from the rest."""
    if path.name != "success.parquet":
        return path.read_bytes()
    table = pl.read_parquet(path)
    counted = table.filter(pl.col("method") == "sampled").height
    follows = [] if counted else ["p", "low", "high", "successes", "samples"]
    kinds = {"iteration": pl.Int32, "log_odds_optimum": pl.Float32, "gap": pl.Float32}
    table = table.drop(follows, strict=False)
    table = table.with_columns(pl.col(name).cast(kind) for name, kind in kinds.items() if name in table.columns)
    buffer = io.BytesIO()
    table.write_parquet(buffer, compression="zstd", compression_level=19)
    return buffer.getvalue()


def _few_colours(path: Path) -> bytes:
    """A picture as a PNG of few colours: a third of the bytes, and the same to the eye."""
    from PIL import Image  # Matplotlib brings it

    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    few.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python experiments/keep.py RUN_DIR")
    print(keep(Path(sys.argv[1])))
