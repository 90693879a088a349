"""The examples of the docstrings, on a real cluster, and the stubs, held against the modules."""

import doctest
import io
import subprocess
import sys
from pathlib import Path

import pytest

import alluxio_dataset

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL

MODULES = ["", ".client", ".file", ".filesystem", ".progress"]


@pytest.fixture
def example(own_cluster, tmp_path, monkeypatch):
    """The file system of the examples, and the words in them that stand for a cluster's own."""
    import pyarrow
    import pyarrow.parquet

    table = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"label": ["cat", "dog"]}), table)
    fs = own_cluster.file_system()
    if fs.exists("data/train"):
        fs.rm("data/train", recursive=True)
    fs.pipe(
        {
            "data/train/labels.csv": b"0.jpg,cat\n1.jpg,dog",
            "data/train/data.parquet": table.getvalue(),
            "data/train/images/0.jpg": b"0" * 100,
            "data/train/images/1.jpg": b"1" * 101,
        }
    )
    (tmp_path / "data/new").mkdir(parents=True)
    (tmp_path / "data/new/one.txt").write_text("one")
    monkeypatch.chdir(tmp_path)
    store = own_cluster.store
    words = {
        '"worker-0,worker-1"': repr(",".join(own_cluster.hosts[:2])),
        '"http://minio:9000"': repr(store.endpoint),
        '"key": "...", "secret": "..."': f'"key": "{store.key}", "secret": "{store.secret}"',
    }
    return own_cluster.file_system(worker_hosts=own_cluster.hosts[:2]), words


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module or "package")
def test_docstrings(example, module):
    fs, words = example
    module = sys.modules[f"alluxio_dataset{module}"]
    names = {**vars(alluxio_dataset), **vars(module), "fs": fs}
    found = [it for it in doctest.DocTestFinder().find(module, globs=names) if it.examples]
    assert found, f"{module.__name__} has no examples"
    for test in found:
        for one in test.examples:
            for word, meant in words.items():
                one.source = one.source.replace(word, meant)
        told = io.StringIO()
        doctest.DocTestRunner(optionflags=FLAGS).run(test, out=told.write)
        assert not told.getvalue(), told.getvalue()


def test_every_module_with_examples_is_run():
    for name, module in sys.modules.items():
        if name.split(".")[0] == "alluxio_dataset" and ">>> " in (module.__doc__ or ""):
            assert name.removeprefix("alluxio_dataset") in MODULES, name


def test_types(tmp_path):
    """mypy holds the stubs against the compiled module, and the package's types against its code."""
    config = Path(__file__).resolve().parents[1] / "pyproject.toml"
    for command in (
        [
            *("mypy.stubtest", "--ignore-disjoint-bases", "--mypy-config-file", config),
            "alluxio_dataset._native",
        ],
        ["mypy", "--config-file", config, "-p", "alluxio_dataset"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *command], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 0, done.stdout + done.stderr
