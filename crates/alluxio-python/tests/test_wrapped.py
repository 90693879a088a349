"""``fs=``: an fsspec file system as the under-store; and protocols that the client does not speak."""

import os

import fsspec
import pytest

from alluxio_dataset import AlluxioFileSystem


@pytest.fixture
def s3(store):
    return store.s3fs()


def test_bytes_come_from_workers_and_names_from_the_file_system(cluster, s3, folder):
    arguments = {"worker_hosts": cluster.arguments["worker_hosts"], "fs": s3}
    fs = AlluxioFileSystem(**arguments, skip_instance_cache=True)
    data = os.urandom(2_500_000)
    fs.pipe_file(f"{folder}/file", data)
    assert s3.cat_file(f"{folder}/file") == data, "writes go through it"
    assert [entry["name"] for entry in fs.ls(f"s3://{folder}")] == [f"{folder}/file"]
    assert fs.info(f"{folder}/file")["last_modification_time_ms"] > 0
    assert fs.cat_file(f"{folder}/file") == data
    assert fs.cat_file(f"{folder}/file", 5, 10) == data[5:10]
    with fs.open(f"{folder}/file") as file:
        file.seek(-100, 2)
        assert file.read() == data[-100:]
    sources = {it["source"]: it["delivered_bytes"] for it in fs.summary(folder)["sources"]}
    assert sources["worker"] == len(data), sources


def test_what_workers_cannot_serve_comes_through_it(s3, folder):
    s3.pipe_file(f"{folder}/file", b"content")
    alone = {"worker_hosts": "127.0.0.1:1", "fs": s3, "skip_instance_cache": True}
    fs = AlluxioFileSystem(**alone)
    assert fs.cat_file(f"{folder}/file") == b"content"
    assert fs.open(f"{folder}/file").read() == b"content"
    strict = AlluxioFileSystem(**alone, fallback_to_ufs_enabled=False)
    with pytest.raises(ConnectionError, match="127.0.0.1:1"):
        strict.cat_file(f"{folder}/file")


def test_an_old_version_on_the_workers_is_passed_over(cluster, s3, folder):
    fs = AlluxioFileSystem(
        worker_hosts=cluster.arguments["worker_hosts"], fs=s3, skip_instance_cache=True
    )
    s3.pipe_file(f"{folder}/file", b"old")
    assert fs.cat_file(f"{folder}/file") == b"old"
    s3.pipe_file(f"{folder}/file", b"a newer one")
    s3.invalidate_cache()
    assert fs.cat_file(f"{folder}/file") == b"a newer one"


@pytest.mark.parametrize("way", ["fs", "target_protocol"])
def test_a_store_that_only_fsspec_speaks(way):
    memory = fsspec.filesystem("dir", path="/made", fs=fsspec.filesystem("memory"))
    given = {"fs": memory} if way == "fs" else {
        "target_protocol": "dir",
        "target_options": {"path": "/made", "target_protocol": "memory"},
    }
    fs = AlluxioFileSystem(worker_hosts="127.0.0.1:1", skip_instance_cache=True, **given)
    fs.pipe_file("a/file", b"content")
    with fs.open("a/other", "wb") as file:
        file.write(b"other")
    assert fs.cat(["a/file", "a/other"]) == {"a/file": b"content", "a/other": b"other"}
    assert fs.exists("a/file") and not fs.exists("a/nothing")
    fs.mv("a/file", "a/moved")
    assert fs.head("a/moved", 3) == b"con"
    with pytest.raises(FileNotFoundError):
        fs.info("a/file")
    fs.rm("a", recursive=True)


def test_local_files(tmp_path):
    fs = AlluxioFileSystem(
        worker_hosts="127.0.0.1:1", target_protocol="file", skip_instance_cache=True
    )
    fs.pipe_file(f"{tmp_path}/file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"
    assert fs.cat_file(f"file://{tmp_path}/file") == b"content"
    assert fs.ls(str(tmp_path), detail=False) == [f"{tmp_path}/file"]
