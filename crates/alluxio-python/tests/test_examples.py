"""The examples of docs/python/examples, on real files. Those whose package is not installed are run by
`make test-python-all`."""

import importlib.util
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[3] / "docs/python/examples"

#: Rows of the table: 3 files with the numbers 0 to 299.
ROWS, SUM = 300, sum(range(300))


@pytest.fixture(scope="module")
def data(store):
    """A table, images and tar shards, written past the product."""
    import numpy
    import pyarrow
    import pyarrow.parquet
    from PIL import Image

    root = store.root / "data" / "examples"
    for name in ("table", "images", "shards"):
        (root / name).mkdir(parents=True)
    for part in range(3):
        numbers = list(range(part * 100, part * 100 + 100))
        table = pyarrow.table({"number": numbers, "text": [f"row {n}" for n in numbers]})
        pyarrow.parquet.write_table(table, root / "table" / f"part-{part}.parquet")
    random = numpy.random.default_rng(1)
    for index in range(100):
        pixels = random.integers(0, 256, (8, 8, 3), dtype=numpy.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{index:03}.png")
    for shard in range(2):
        with tarfile.open(root / "shards" / f"{shard}.tar", "w") as tar:
            for index in range(10):
                for suffix, content in (("txt", b"text"), ("cls", b"%d" % index)):
                    member = tarfile.TarInfo(f"{shard}-{index}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return "s3://data/examples"


def run(cluster, name: str, *arguments: str) -> str:
    environment = {
        **os.environ,
        "ALLUXIO_WORKERS": ",".join(cluster.hosts),
        "S3_ENDPOINT": cluster.store.endpoint,
        "AWS_ACCESS_KEY_ID": cluster.store.key,
        "AWS_SECRET_ACCESS_KEY": cluster.store.secret,
        "AWS_EC2_METADATA_DISABLED": "true",
        "HF_HUB_OFFLINE": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def needs(package: str):
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed: `make test-python-all`")


def test_pyarrow(cluster, data):
    told = run(cluster, "pyarrow_parquet.py", f"{data}/table")
    assert "rows of one file 100\n" in told
    assert f"rows of all files {ROWS}\n" in told
    assert "rows over 150 150\n" in told
    assert "rows written 100\n" in told


def test_pandas(cluster, data):
    told = run(cluster, "pandas_frames.py", f"{data}/table")
    assert told == f"rows 100 sum {sum(range(100))}\nrows of the CSV 100 equal True\n"


def test_duckdb(cluster, data):
    told = run(cluster, "duckdb_query.py", f"{data}/table")
    assert f"rows and sum ({ROWS}, {SUM})" in told


def test_load(cluster, data):
    assert "files 100 bytes" in run(cluster, "load.py", f"{data}/images")


def test_processes(cluster, data):
    assert run(cluster, "processes.py", f"{data}/images") == "images 100 different 100\n"


@needs("torch")
def test_pytorch(cluster, data):
    assert "images 100 sum of pixels" in run(cluster, "pytorch_dataloader.py", f"{data}/images")


@needs("ray")
def test_ray(cluster, data):
    told = run(cluster, "ray_data.py", f"{data}/table", f"{data}/images")
    assert f"rows {ROWS} sum {SUM}\n" in told
    assert "images 100\nfiles 100\n" in told
    assert f"rows written {ROWS}\n" in told


@needs("datasets")
def test_huggingface_datasets(cluster, data):
    assert f"rows {ROWS} sum {SUM}\n" == run(cluster, "huggingface_datasets.py", f"{data}/table")


@needs("webdataset")
def test_webdataset(cluster, data):
    assert run(cluster, "webdataset_shards.py", f"{data}/shards") == "samples 20 shards 2\n"


def test_every_example_is_tested():
    tested = Path(__file__).read_text()
    assert all(f'"{example.name}"' in tested for example in EXAMPLES.glob("*.py"))
