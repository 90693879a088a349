"""The product's file system beside the published SDK (alluxiofs 1.0.0) and s3fs, in one run: one
embedded worker, one S3 server (versitygw), the same files, each row of each contender in a process of
its own.

    python speed.py --python PYTHON --json speed.json --table speed.md

`PYTHON` has alluxio_dataset, alluxiofs and s3fs; `ALLUXIO_DATASET_BINARY` is a release build.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from conftest import BUCKET, Cluster, Store  # noqa: E402

CONTENDERS = ["product", "sdk", "s3fs"]
ROWS = [
    "cat of 256 MiB",
    "1,000 random ranges of 64 KiB",
    "ls of 10,000 files",
    "5,000 files of 16 KiB, 8 threads",
]
#: Every row of every contender is taken this often, in turns; the fastest counts.
ROUNDS = 3


def fill(store):
    """The files, written past the S3 server, and what they are."""
    scene = {
        "large": f"{BUCKET}/large/file",
        "large_bytes": 256 << 20,
        "many": f"{BUCKET}/many",
        "many_files": 10_000,
        "small": f"{BUCKET}/small",
        "small_files": 5_000,
        "small_bytes": 16 << 10,
    }
    for name in ("large", "many", "small"):
        (store.root / BUCKET / name).mkdir()
    (store.root / scene["large"]).write_bytes(os.urandom(scene["large_bytes"]))
    for index in range(scene["many_files"]):
        (store.root / scene["many"] / f"{index:05}").write_bytes(b"")
    for index in range(scene["small_files"]):
        content = os.urandom(scene["small_bytes"])
        (store.root / scene["small"] / f"{index:05}").write_bytes(content)
    return scene


def run(python, scene_file, measured):
    for _ in range(ROUNDS):
        for row in ROWS:
            for name in CONTENDERS:
                command = [python, HERE / "contender.py", name, scene_file, row]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                assert done.returncode == 0, f"{name}, {row}: {done.stderr[-3000:]}"
                for which, figures in json.loads(done.stdout).items():
                    kept = measured.setdefault(row, {}).setdefault(name, {})
                    if which not in kept or figures["seconds"] < kept[which]["seconds"]:
                        kept[which] = figures


def table(rows):
    lines = [
        "| row | client | first, s | again, s | x SDK | x s3fs | CPU s/GiB | peak RSS, MiB |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row, by_name in rows.items():
        for name in CONTENDERS:
            first, again = by_name[name]["first"], by_name[name]["again"]
            against = [by_name[other]["again"]["seconds"] / again["seconds"] for other in ("sdk", "s3fs")]
            cpu = again["cpu_seconds_per_gib"]
            lines.append(
                f"| {row} | {name} | {first['seconds']:.3f} | {again['seconds']:.3f} | "
                f"{against[0]:.1f} | {against[1]:.1f} | {'' if cpu is None else f'{cpu:.2f}'} | "
                f"{again['peak_rss_mib']:.0f} |"
            )
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--json", default="speed.json")
    parser.add_argument("--table", default="speed.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        cluster = Cluster(Path(folder) / "cluster", store, workers=1)
        try:
            scene = fill(store)
            scene |= {"worker": cluster.hosts[0]}
            scene["s3"] = {
                "endpoint_url": store.endpoint,
                "key": store.key,
                "secret": store.secret,
            }
            from alluxio_dataset import AlluxioClient

            client = AlluxioClient(worker_hosts=cluster.hosts[0])
            for name in ("large", "small"):
                client.load(f"s3://{BUCKET}/{name}", timeout=100)
            scene_file = Path(folder) / "scene.json"
            scene_file.touch(mode=0o600)
            scene_file.write_text(json.dumps(scene))
            rows = {}
            run(arguments.python, scene_file, rows)
        finally:
            cluster.stop()
            store.server.kill()
    machine = {"processors": os.cpu_count(), "python": platform.python_version()}
    Path(arguments.json).write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    Path(arguments.table).write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
