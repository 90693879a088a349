"""The product's file system beside the published SDK (alluxiofs 1.0.0) and s3fs, in one run: one
embedded worker, one S3 server (versitygw), the same files, each row of each client in a process of its
own, the clients in turns.

    python speed.py FIGURES.json [--only cat,ls] [--rounds 3]

The Python that runs it has alluxio_dataset, alluxiofs and s3fs; `ALLUXIO_DATASET_BINARY` is a release
build. `make bench-python` sees to both. Rows that are left out stay as the file has them.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from conftest import BUCKET, Cluster, Store  # noqa: E402
from report import CLIENTS, ROWS, tables  # noqa: E402


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


def measure(row, rounds, scene_file):
    """The median of each figure of each client."""
    taken = {name: [] for name in CLIENTS}
    for _ in range(rounds):
        for name in CLIENTS:
            command = [sys.executable, HERE / "contender.py", name, scene_file, row]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{name}, {row}: {done.stderr[-3000:]}"
            taken[name].append(json.loads(done.stdout))
    return {
        name: {which: median([it[which] for it in rows]) for which in ("first", "again")}
        for name, rows in taken.items()
    }


def median(rows):
    return {
        figure: None if value is None else statistics.median(row[figure] for row in rows)
        for figure, value in rows[0].items()
    }


def machine():
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return (
        f"{os.cpu_count()} cores, {round(memory_kib / (1 << 20))} GiB, Linux {platform.release()}, "
        f"CPython {platform.python_version()}, everything on loopback."
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", type=Path)
    parser.add_argument("--only", default=",".join(ROWS), help="rows: %(default)s")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    rows = arguments.only.split(",")
    if unknown := set(rows) - set(ROWS):
        parser.error(f"no row {', '.join(unknown)}; there are {', '.join(ROWS)}")
    figures = {"machine": machine(), "rows": {}}
    if arguments.figures.exists():
        figures["rows"] = json.loads(arguments.figures.read_text())["rows"]
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        cluster = Cluster(Path(folder) / "cluster", store, workers=1)
        try:
            scene = {**fill(store), "worker": cluster.hosts[0], "s3": store.options}
            from alluxio_dataset import AlluxioClient

            client = AlluxioClient(worker_hosts=cluster.hosts[0])
            for name in ("large", "small"):
                client.load(f"s3://{BUCKET}/{name}", timeout=100)
            scene_file = Path(folder) / "scene.json"
            scene_file.touch(mode=0o600)
            scene_file.write_text(json.dumps(scene))
            for row in rows:
                figures["rows"][row] = measure(row, arguments.rounds, scene_file)
        finally:
            cluster.stop()
            store.server.kill()
    arguments.figures.parent.mkdir(exist_ok=True)
    arguments.figures.write_text(json.dumps(figures, indent=1) + "\n")
    print(tables(figures))


if __name__ == "__main__":
    main()
