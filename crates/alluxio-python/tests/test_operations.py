"""The 15 operations, with all workers up, one down, all down, and all down without the fallback.

The table of docs/python/README.md is this one: what is told there is asserted here.
"""

import pytest
from conftest import wait_for

CONTENT = bytes(range(256)) * 16


def ls(fs, folder, local):
    entries = fs.ls(folder, detail=True)
    assert [entry["name"] for entry in entries] == [f"{folder}/a.bin", f"{folder}/sub"]
    assert entries[0]["type"] == "file" and entries[0]["size"] == len(CONTENT)
    assert entries[0]["last_modification_time_ms"] > 0
    assert entries[1]["type"] == "directory" and entries[1]["size"] == 0
    assert fs.ls(folder, detail=False) == [f"{folder}/a.bin", f"{folder}/sub"]


def info(fs, folder, local):
    entry = fs.info(f"s3://{folder}/a.bin")
    assert entry["name"] == f"{folder}/a.bin"
    assert entry["size"] == len(CONTENT) and entry["type"] == "file" and entry["ETag"]


def isdir(fs, folder, local):
    assert fs.isdir(f"{folder}/sub")
    assert not fs.isdir(f"{folder}/a.bin")
    assert not fs.isdir(f"{folder}/nothing")


def open_(fs, folder, local):
    with fs.open(f"{folder}/a.bin", "rb", block_size=1 << 16, cache_options={}) as file:
        assert file.read(10) == CONTENT[:10]
        file.seek(-6, 2)
        assert file.read() == CONTENT[-6:]
    with fs.open(f"{folder}/written.bin", "wb") as file:
        file.write(b"one ")
        file.write(bytearray(b"two"))
    assert fs.cat_file(f"{folder}/written.bin") == b"one two"
    fs.rm(f"{folder}/written.bin")


def mkdir(fs, folder, local):
    fs.mkdir(f"{folder}/made/deep")
    assert fs.isdir(f"{folder}/made/deep") and fs.isdir(f"{folder}/made")
    with pytest.raises(FileExistsError):
        fs.mkdir(f"{folder}/made/deep")
    fs.rm(f"{folder}/made", recursive=True)


def rm(fs, folder, local):
    fs.pipe({f"{folder}/gone/a": b"1", f"{folder}/gone/b/c": b"2"})
    fs.rm(f"{folder}/gone/a")
    assert not fs.exists(f"{folder}/gone/a")
    fs.rm(f"{folder}/gone", recursive=True)
    assert not fs.exists(f"{folder}/gone/b/c") and not fs.exists(f"{folder}/gone")
    with pytest.raises(FileNotFoundError):
        fs.rm(f"{folder}/gone")


def touch(fs, folder, local):
    fs.touch(f"{folder}/touched")
    assert fs.info(f"{folder}/touched")["size"] == 0
    fs.pipe_file(f"{folder}/touched", b"kept")
    fs.touch(f"{folder}/touched", truncate=False)
    assert fs.cat_file(f"{folder}/touched") == b"kept"
    fs.touch(f"{folder}/touched", truncate=True)
    assert fs.cat_file(f"{folder}/touched") == b""
    fs.rm(f"{folder}/touched")


def head(fs, folder, local):
    assert fs.head(f"{folder}/a.bin", num_of_bytes=7) == CONTENT[:7]
    assert fs.head(f"{folder}/a.bin") == CONTENT[:1024]


def tail(fs, folder, local):
    assert fs.tail(f"{folder}/a.bin", num_of_bytes=7) == CONTENT[-7:]
    assert fs.tail(f"{folder}/a.bin", 10**6) == CONTENT


def mv(fs, folder, local):
    fs.pipe_file(f"{folder}/from", b"moved")
    fs.mv(f"{folder}/from", f"{folder}/to")
    assert fs.cat_file(f"{folder}/to") == b"moved" and not fs.exists(f"{folder}/from")
    fs.pipe_file(f"{folder}/tree/x/y", b"deep")
    fs.mv(f"{folder}/tree", f"{folder}/tree2", recursive=True)
    assert fs.cat_file(f"{folder}/tree2/x/y") == b"deep" and not fs.exists(f"{folder}/tree")
    fs.rm([f"{folder}/to", f"{folder}/tree2"], recursive=True)


def cp(fs, folder, local):
    fs.cp(f"{folder}/a.bin", f"{folder}/copy.bin")
    assert fs.cat_file(f"{folder}/copy.bin") == CONTENT == fs.cat_file(f"{folder}/a.bin")
    fs.rm(f"{folder}/copy.bin")


def read_bytes(fs, folder, local):
    assert fs.read_bytes(f"{folder}/a.bin") == CONTENT
    assert fs.read_bytes(f"{folder}/a.bin", start=100, end=200) == CONTENT[100:200]
    assert fs.read_bytes(f"{folder}/a.bin", start=-5) == CONTENT[-5:]


def write_bytes(fs, folder, local):
    fs.write_bytes(f"{folder}/written", b"first")
    fs.write_bytes(f"{folder}/written", b"second")
    assert fs.read_bytes(f"{folder}/written") == b"second"
    fs.rm(f"{folder}/written")


def upload(fs, folder, local):
    (local / "up").mkdir(parents=True, exist_ok=True)
    (local / "up" / "one").write_bytes(CONTENT)
    fs.upload(str(local / "up" / "one"), f"{folder}/up.bin")
    assert fs.cat_file(f"{folder}/up.bin") == CONTENT
    fs.upload(str(local / "up"), f"{folder}/updir", recursive=True)
    assert fs.cat_file(f"{folder}/updir/one") == CONTENT
    fs.rm([f"{folder}/up.bin", f"{folder}/updir"], recursive=True)


def download(fs, folder, local):
    fs.download(f"{folder}/a.bin", str(local / "down.bin"))
    assert (local / "down.bin").read_bytes() == CONTENT
    fs.download(f"{folder}/sub", str(local / "downdir"), recursive=True)
    assert (local / "downdir" / "b.txt").read_bytes() == b"below"


OPERATIONS = [
    *(ls, info, isdir, open_, mkdir, rm, touch, head, tail, mv, cp, read_bytes, write_bytes),
    *(upload, download),
]

#: What reads bytes or names, and so cannot work without workers and without the fallback.
READS = {ls, info, isdir, open_, head, tail, read_bytes, download}


@pytest.fixture
def filled(store, folder):
    """Written past the product, as data sets are."""
    store.s3fs().pipe({f"{folder}/a.bin": CONTENT, f"{folder}/sub/b.txt": b"below"})
    return folder


def names(operation):
    return operation.__name__.rstrip("_")


@pytest.mark.parametrize("operation", OPERATIONS, ids=names)
def test_all_workers_up(operation, fs, filled, tmp_path):
    operation(fs, filled, tmp_path)


@pytest.fixture(scope="module")
def one_down(tmp_path_factory, store):
    from conftest import Cluster

    cluster = Cluster(tmp_path_factory.mktemp("one-down"), store)
    cluster.workers[0].kill()
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def all_down(tmp_path_factory, store):
    from conftest import Cluster

    cluster = Cluster(tmp_path_factory.mktemp("all-down"), store, workers=2)
    cluster.stop()
    return cluster


@pytest.mark.parametrize("operation", OPERATIONS, ids=names)
def test_one_worker_down(operation, one_down, filled, tmp_path):
    operation(one_down.file_system(), filled, tmp_path)


@pytest.mark.parametrize("operation", OPERATIONS, ids=names)
def test_all_workers_down(operation, all_down, filled, tmp_path):
    operation(all_down.file_system(), filled, tmp_path)


@pytest.mark.parametrize("operation", sorted(READS, key=names), ids=names)
def test_all_workers_down_without_fallback(operation, all_down, filled, tmp_path):
    fs = all_down.file_system(fallback_to_ufs_enabled=False)
    with pytest.raises(ConnectionError) as raised:
        operation(fs, filled, tmp_path)
    assert filled in str(raised.value), "the error names the path"
    assert "worker" in str(raised.value), "and the cause"


def test_a_client_says_where_bytes_came_from(cluster, filled):
    fs = cluster.file_system()
    fs.cat_file(f"{filled}/a.bin")
    sources = {it["source"]: it["delivered_bytes"] for it in fs.summary(filled)["sources"]}
    assert sum(sources.values()) == len(CONTENT)
    assert sources["worker"] == len(CONTENT), sources
    assert len(fs.workers(filled)) == 3


def test_a_worker_that_dies_between_two_reads_is_no_error(own_cluster, filled):
    fs = own_cluster.file_system(options={"client.memory_limit": "4Mi"})
    before = {f"{filled}/a.bin": CONTENT, f"{filled}/sub/b.txt": b"below"}
    assert fs.cat(list(before)) == before
    for worker in own_cluster.workers:
        worker.kill()
    fresh = own_cluster.file_system()
    assert fresh.cat(list(before)) == before
    sources = {it["source"]: it["delivered_bytes"] for it in fresh.summary(filled)["sources"]}
    wait_for(lambda: sources.get("worker", 0) == 0, "no byte came from a dead worker", 1)
