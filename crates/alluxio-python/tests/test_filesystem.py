"""Names, options, errors, listings, bulk reads: what the table of operations does not say."""

import asyncio
import errno
import io
import logging
import os
import pickle
from datetime import datetime, timezone

import fsspec
import pytest
from conftest import wait_for

import alluxio_dataset
from alluxio_dataset import AlluxioFileSystem


# ---------------------------------------------------------------- names


def test_the_protocols_are_registered():
    assert fsspec.get_filesystem_class("alluxio") is AlluxioFileSystem
    assert issubclass(fsspec.get_filesystem_class("alluxiofs"), AlluxioFileSystem)


def test_a_path_may_be_given_in_five_ways(fs, folder):
    fs.pipe_file(f"{folder}/file", b"same")
    for path in (
        f"{folder}/file",
        f"s3://{folder}/file",
        f"alluxio://{folder}/file",
        f"alluxiofs://{folder}/file",
        f"alluxio://s3://{folder}/file",
    ):
        assert fs.cat_file(path) == b"same", path
        assert fs.info(path)["name"] == f"{folder}/file", path
    assert fs.ufs_uri(f"{folder}/file") == f"s3://{folder}/file"
    for path in (f"{folder}/file", f"s3://{folder}/file", f"alluxio://{folder}/file"):
        assert fs.unstrip_protocol(path) == f"alluxio://{folder}/file"


def test_a_url_opens_through_fsspec(cluster, folder):
    cluster.file_system().pipe_file(f"{folder}/file.txt", b"a line\n")
    arguments = dict(cluster.arguments)
    del arguments["target_protocol"]
    with fsspec.open(f"alluxio://s3://{folder}/file.txt", "rt", **arguments) as file:
        assert file.read() == "a line\n"


def test_a_path_of_another_store_is_refused(fs):
    with pytest.raises(ValueError, match="target_protocol is 's3'"):
        fs.cat_file("gs://bucket/file")


def test_names_with_odd_characters_come_back_as_they_went(fs, folder):
    for name in ("with space", "plus+and%20percent", "ümläut", "hash#and=equals", "emoji-😀"):
        fs.pipe_file(f"{folder}/odd/{name}", name.encode())
        assert fs.cat_file(f"{folder}/odd/{name}") == name.encode(), name
    found = {entry["name"].rsplit("/", 1)[-1] for entry in fs.ls(f"{folder}/odd")}
    assert found == {
        *("with space", "plus+and%20percent", "ümläut", "hash#and=equals", "emoji-😀")
    }


# ---------------------------------------------------------------- options


def test_an_unknown_option_names_the_nearest(cluster):
    with pytest.raises(ValueError, match="did you mean `alluxio.worker.page.store.page.size`"):
        cluster.file_system(options={"alluxio.worker.pagestore.page.size": "1MB"})
    with pytest.raises(ValueError, match="did you mean `client.memory_limit`"):
        cluster.file_system(options={"client.memory_limits": "1Gi"})
    with pytest.raises(ValueError, match="did you mean `worker_hosts`"):
        cluster.file_system(worker_host="a")
    with pytest.raises(ValueError, match="endpoint_ulr"):
        cluster.file_system(target_options={"endpoint_ulr": "http://s3"})


@pytest.mark.parametrize(
    "wrong, told",
    [
        ({"worker_hosts": None}, "etcd_hosts or worker_hosts"),
        ({"etcd_hosts": "etcd"}, "not two"),
        ({"target_protocol": None}, "target_protocol"),
        ({"fs": object()}, "one of the two"),
        ({"worker_http_port": 0}, "worker_http_port"),
        ({"etcd_port": "none"}, "etcd_port"),
        ({"concurrency": 0}, "concurrency"),
        ({"options": {"alluxio.worker.page.store.page.size": "3"}}, "page size"),
        ({"options": {"client.memory_limit": "1"}}, "client.memory_limit"),
        ({"logger": {"file": "x"}}, "logger has no 'file'"),
        ({"logger": ("/tmp/log", "loud")}, "level"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_argument_is_told_when_the_file_system_is_made(cluster, wrong, told):
    with pytest.raises(ValueError, match=told):
        cluster.file_system(**wrong)


def test_options_by_alluxios_names(tmp_path, store, folder):
    from conftest import Cluster

    cluster = Cluster(tmp_path, store, workers=1)
    host, port = cluster.hosts[0].split(":")
    fs = cluster.file_system(
        worker_hosts=[host],
        worker_http_port=int(port),
        options={
            "alluxio.worker.page.store.page.size": "1MB",
            "alluxio.user.consistent.hash.virtual.node.count.per.worker": "5",
            "client.memory_limit": "8Mi",
        },
        cluster_name="another",
        concurrency=8,
    )
    fs.pipe_file(f"{folder}/file", b"x" * 3_000_000)
    assert fs.cat_file(f"{folder}/file") == b"x" * 3_000_000
    cluster.stop()


def test_pages_of_20_mb(cluster, folder):
    # Without workers: theirs have another page size.
    fs = cluster.file_system(
        worker_hosts=None,
        options={"alluxio.worker.page.store.page.size": "20MB"},
        test_options={"skip_alluxio": True},
    )
    data = os.urandom(1 << 20) * 23
    fs.pipe_file(f"{folder}/large", data)
    assert fs.cat_file(f"{folder}/large") == data
    assert fs.cat_file(f"{folder}/large", 20 * 2**20 - 3, 20 * 2**20 + 3) == data[-3 * 2**20 - 3 :][:6]


def test_credentials_are_not_shown(fs, store):
    assert store.secret not in repr(fs) and store.secret not in str(fs)
    with pytest.raises(PermissionError) as raised:
        wrong = {**store.options, "secret": "wrong-secret-of-a-user"}
        AlluxioFileSystem(
            worker_hosts="127.0.0.1:1", target_protocol="s3", target_options=wrong
        ).ls("data")
    assert "wrong-secret" not in str(raised.value)


def test_file_systems_of_equal_arguments_are_one(cluster):
    one = AlluxioFileSystem(**cluster.arguments)
    assert AlluxioFileSystem(**cluster.arguments) is one
    assert pickle.loads(pickle.dumps(one)) is one
    assert pickle.loads(pickle.dumps(one)) == one
    assert AlluxioFileSystem.from_json(one.to_json()) is one


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "wrong, kind, number",
    [
        (lambda fs, at: fs.info(f"{at}/nothing"), FileNotFoundError, errno.ENOENT),
        (lambda fs, at: fs.ls(f"{at}/nothing"), FileNotFoundError, errno.ENOENT),
        (lambda fs, at: fs.cat_file(f"{at}/nothing"), FileNotFoundError, errno.ENOENT),
        (lambda fs, at: fs.open(f"{at}/nothing"), FileNotFoundError, errno.ENOENT),
        (lambda fs, at: fs.open(f"{at}/dir"), IsADirectoryError, errno.EISDIR),
        (lambda fs, at: fs.open(f"{at}/dir", "wb"), IsADirectoryError, errno.EISDIR),
        (lambda fs, at: fs.cat_file(f"{at}/dir"), IsADirectoryError, errno.EISDIR),
        (lambda fs, at: fs.rmdir(f"{at}/dir/file"), NotADirectoryError, errno.ENOTDIR),
        (lambda fs, at: fs.rmdir(f"{at}/dir"), OSError, errno.ENOTEMPTY),
        (lambda fs, at: fs.mkdir(f"{at}/dir/file"), FileExistsError, errno.EEXIST),
        (lambda fs, at: fs.open(f"{at}/dir/file", "xb"), FileExistsError, errno.EEXIST),
        (lambda fs, at: fs.pipe_file(f"{at}/dir/file", b"", mode="create"), FileExistsError, errno.EEXIST),
        (lambda fs, at: fs.mkdir(f"{at}/no/parent", create_parents=False), FileNotFoundError, errno.ENOENT),
    ],
)
def test_errors_are_pythons_own_with_path_and_cause(fs, folder, wrong, kind, number):
    fs.pipe_file(f"{folder}/dir/file", b"content")
    with pytest.raises(kind) as raised:
        wrong(fs, folder)
    assert raised.value.errno == number
    assert folder in raised.value.filename
    assert raised.value.strerror


def test_what_cannot_be_is_a_value_error(fs, folder):
    for wrong in (
        lambda: fs.open(f"{folder}/file", "ab"),
        lambda: fs.open(f"{folder}/file", "r+b"),
        lambda: fs.ls(""),
        lambda: fs.rm("data", recursive=True),
        lambda: fs.open(f"{folder}/file", access_profile="fast"),
    ):
        with pytest.raises(ValueError):
            wrong()


def test_a_file_that_changes_while_it_is_read_is_stale(fs, store, folder):
    fs.pipe_file(f"{folder}/file", b"a" * 4_000_000)
    file = fs.open(f"{folder}/file")
    assert file.read(10) == b"a" * 10
    store.s3fs().pipe_file(f"{folder}/file", b"b" * 4_000_000)
    with pytest.raises(OSError) as raised:
        while block := file.read(1 << 20):
            assert set(block) == {ord("a")}, "bytes of two versions never meet"
    assert raised.value.errno == errno.ESTALE


def test_transactions_are_refused(fs):
    with pytest.raises(NotImplementedError, match="transactions"):
        with fs.transaction:
            pass
    with pytest.raises(NotImplementedError, match="transactions"):
        fs.start_transaction()


# ---------------------------------------------------------------- what is there


@pytest.fixture
def tree(fs, folder):
    files = {
        f"{folder}/a.txt": b"1",
        f"{folder}/b.csv": b"22",
        f"{folder}/sub/c.txt": b"333",
        f"{folder}/sub/deep/d.txt": b"4444",
    }
    fs.pipe(files)
    return folder, files


def test_find_walk_glob_du(fs, tree):
    folder, files = tree
    assert fs.find(folder) == sorted(files)
    assert fs.find(folder, maxdepth=1) == [f"{folder}/a.txt", f"{folder}/b.csv"]
    assert fs.find(folder, withdirs=True) == sorted(
        [*files, folder, f"{folder}/sub", f"{folder}/sub/deep"]
    )
    assert fs.find(f"{folder}/a.txt") == [f"{folder}/a.txt"]
    assert fs.find(f"{folder}/nothing") == []
    found = fs.find(folder, detail=True)
    assert {name: entry["size"] for name, entry in found.items()} == {
        name: len(data) for name, data in files.items()
    }
    assert [(root, sorted(dirs), sorted(names)) for root, dirs, names in fs.walk(folder)] == [
        (folder, ["sub"], ["a.txt", "b.csv"]),
        (f"{folder}/sub", ["deep"], ["c.txt"]),
        (f"{folder}/sub/deep", [], ["d.txt"]),
    ]
    assert fs.glob(f"{folder}/*.txt") == [f"{folder}/a.txt"]
    assert fs.glob(f"{folder}/**/*.txt") == sorted(n for n in files if n.endswith(".txt"))
    assert fs.glob(f"s3://{folder}/*/c.txt") == [f"{folder}/sub/c.txt"]
    assert fs.du(folder) == 10
    assert fs.du(folder, total=False)[f"{folder}/b.csv"] == 2
    assert fs.expand_path(f"{folder}/*.csv") == [f"{folder}/b.csv"]
    assert fs.exists(f"{folder}/sub") and not fs.exists(f"{folder}/nothing")
    assert fs.isfile(f"{folder}/a.txt") and not fs.isfile(f"{folder}/sub")
    assert fs.sizes([f"{folder}/a.txt", f"{folder}/b.csv"]) == [1, 2]
    assert fs.ls(f"{folder}/a.txt", detail=False) == [f"{folder}/a.txt"]


def test_cat_of_many(fs, tree):
    folder, files = tree
    assert fs.cat(folder, recursive=True) == files
    assert fs.cat(f"{folder}/*.txt") == {f"{folder}/a.txt": b"1"}
    both = [f"{folder}/a.txt", f"{folder}/nothing"]
    with pytest.raises(FileNotFoundError):
        fs.cat(both)
    assert fs.cat(both, on_error="omit") == {both[0]: b"1"}
    assert isinstance(fs.cat(both, on_error="return")[both[1]], FileNotFoundError)


def test_cat_ranges(fs, folder):
    data = os.urandom(3_000_000)
    fs.pipe_file(f"{folder}/file", data)
    starts = [0, 5, 1_048_570, 2_999_999, -10, None]
    ends = [1, 5, 1_048_590, 4_000_000, None, 10]
    answers = fs.cat_ranges([f"{folder}/file"] * len(starts), starts, ends)
    assert answers == [data[start:end] for start, end in zip(starts, ends)]
    answers = fs.cat_ranges([f"{folder}/file", f"{folder}/nothing"], 0, 4)
    assert answers[0] == data[:4] and isinstance(answers[1], FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges([f"{folder}/nothing"], 0, 4, on_error="raise")


def test_versions(fs, folder):
    fs.pipe_file(f"{folder}/file", b"one")
    key, checksum = fs.ukey(f"{folder}/file"), fs.checksum(f"{folder}/file")
    assert (key, checksum) == (fs.ukey(f"{folder}/file"), fs.checksum(f"{folder}/file"))
    age = datetime.now(timezone.utc) - fs.modified(f"{folder}/file")
    assert abs(age.total_seconds()) < 60
    assert fs.created(f"{folder}/file") == fs.modified(f"{folder}/file")
    fs.pipe_file(f"{folder}/file", b"two")
    assert fs.ukey(f"{folder}/file") != key and fs.checksum(f"{folder}/file") != checksum


def test_what_others_write_is_seen_after_invalidate_cache(fs, store, folder):
    fs.pipe_file(f"{folder}/file", b"one")
    assert fs.ls(folder, detail=False) == [f"{folder}/file"]
    store.s3fs().pipe_file(f"{folder}/another", b"two")
    fs.invalidate_cache(folder)
    assert fs.ls(folder, detail=False) == [f"{folder}/another", f"{folder}/file"]


def test_get_and_put_tell_their_progress(fs, folder, tmp_path):
    from fsspec.callbacks import Callback

    class Heard(Callback):
        """What was told, and the same of the children, each of which is one file."""

        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.told, self.children = [], []

        def call(self, *args, **kwargs):
            self.told.append(self.value)

        def branched(self, *paths, **kwargs):
            self.children.append(Heard())
            return self.children[-1]

        def branch(self, path_1, path_2, kwargs):
            kwargs["callback"] = self.branched(path_1, path_2)

    data = os.urandom(20_000_000)
    (tmp_path / "large").write_bytes(data)
    up, down = Heard(), Heard()
    fs.put_file(str(tmp_path / "large"), f"{folder}/large", callback=up)
    fs.get_file(f"{folder}/large", str(tmp_path / "back"), callback=down)
    for heard in (up, down):
        assert heard.size == len(data) == heard.told[-1] and heard.told == sorted(heard.told)
    assert (tmp_path / "back").read_bytes() == data
    opened, told = io.BytesIO(), Heard()
    fs.get_file(f"{folder}/large", None, callback=told, outfile=opened)
    assert opened.getvalue() == data and told.told[-1] == len(data)

    (tmp_path / "many").mkdir()
    for index in range(20):
        (tmp_path / "many" / f"{index}").write_bytes(b"x" * index)
    up, down = Heard(), Heard()
    fs.upload(str(tmp_path / "many"), f"{folder}/many", recursive=True, callback=up)
    fs.download(f"{folder}/many", str(tmp_path / "back-many"), recursive=True, callback=down)
    for heard in (up, down):
        assert heard.told[-1] == heard.size >= 20
        assert sum(child.value for child in heard.children) == sum(range(20))
    assert {path.name for path in (tmp_path / "back-many").iterdir()} == set(map(str, range(20)))
    with pytest.raises(FileNotFoundError):
        fs.get_file(f"{folder}/nothing", str(tmp_path / "none"))
    assert not (tmp_path / "none").exists(), "a file that failed leaves nothing behind"


def test_a_download_that_was_cut_goes_on(cluster, fs, folder, tmp_path):
    data = os.urandom(40_000_000)
    fs.pipe_file(f"{folder}/large", data)
    target, part = tmp_path / "large", tmp_path / ".large.alluxio-part"

    async def cut():
        fs = cluster.file_system(asynchronous=True)
        getting = asyncio.ensure_future(fs._get_file(f"{folder}/large", target))
        while not getting.done() and not (part.exists() and part.stat().st_size > 8_000_000):
            await asyncio.sleep(0)
        if getting.done():
            target.unlink()
            return False
        getting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await getting
        return True

    assert any(asyncio.run(cut()) for _ in range(20)), "it was faster than we each time"
    assert part.stat().st_size > 8_000_000 and not target.exists()

    def go_on():
        try:
            fs.get_file(f"{folder}/large", target)
            return True
        except ConnectionError:
            # The last piece of the one that was cut is still being written.
            return False

    wait_for(go_on, "the download went on")
    assert target.read_bytes() == data
    assert os.listdir(tmp_path) == ["large"]


# ---------------------------------------------------------------- files


def test_a_file_is_read_in_every_way(fs, folder):
    lines = b"".join(b"line %d\n" % number for number in range(100_000))
    fs.pipe_file(f"{folder}/lines", lines)
    with fs.open(f"{folder}/lines", block_size=4096) as file:
        assert file.size == len(lines) and file.info()["size"] == len(lines)
        assert file.readline() == b"line 0\n" and file.tell() == 7 == file.loc
        assert file.readuntil(b"9\n") == b"".join(b"line %d\n" % n for n in range(1, 10))
        buffer = bytearray(1_000_000)
        file.seek(100)
        assert file.readinto(buffer) == len(buffer)
        assert buffer == lines[100:1_000_100]
        assert file.read_at(7, 6) == b"line 1"
        assert file.read() == lines[1_000_100:] and file.read() == b"" and file.read(5) == b""
        file.seek(0)
        assert b"".join(file) == lines
        again = pickle.loads(pickle.dumps(file))
        assert again.tell() == len(lines) and again.seek(0) == 0 and again.read() == lines
    with pytest.raises(ValueError):
        file.read()
    with fs.open(f"{folder}/lines", "r") as text:
        assert text.readline() == "line 0\n"


def test_a_file_appears_whole_or_not_at_all(fs, folder):
    fs.pipe_file(f"{folder}/file", b"old")
    with pytest.raises(RuntimeError, match="in the middle"):
        with fs.open(f"{folder}/file", "wb") as file:
            file.write(b"n" * 20_000_000)
            raise RuntimeError("in the middle")
    assert fs.cat_file(f"{folder}/file") == b"old"
    file = fs.open(f"{folder}/file", "wb")
    file.write(b"new")
    assert fs.cat_file(f"{folder}/file") == b"old", "not before it is closed"
    file.close()
    assert fs.cat_file(f"{folder}/file") == b"new"
    forgotten = fs.open(f"{folder}/file", "wb")
    forgotten.write(b"never closed")
    del forgotten
    assert fs.cat_file(f"{folder}/file") == b"new"


def test_a_long_file_is_written_in_parts(fs, folder):
    data = os.urandom(1 << 20) * 30
    with fs.open(f"{folder}/large", "wb") as file:
        for start in range(0, len(data), 1_000_000):
            file.write(memoryview(data)[start : start + 1_000_000])
        assert file.tell() == len(data)
    assert fs.cat_file(f"{folder}/large") == data


# ---------------------------------------------------------------- logs


def test_the_log_goes_to_a_file(cluster, folder, tmp_path):
    from test_processes import in_a_new_process

    log = tmp_path / "client.log"
    code = f"""
fs = AlluxioFileSystem(**{{**ARGUMENTS, "worker_hosts": "127.0.0.1:1"}}, logger=({str(log)!r}, "debug"))
fs.pipe_file("{folder}/file", b"x")
assert fs.cat_file("{folder}/file") == b"x"
"""
    in_a_new_process(cluster, code)
    assert "127.0.0.1:1" in log.read_text()


def test_the_log_goes_to_a_logger(cluster, folder):
    from test_processes import in_a_new_process

    code = f"""
import logging, time
lines = []
class Kept(logging.Handler):
    def emit(self, record): lines.append((record.levelname, record.getMessage()))
logger = logging.getLogger("mine"); logger.setLevel("DEBUG"); logger.addHandler(Kept())
fs = AlluxioFileSystem(**{{**ARGUMENTS, "worker_hosts": "127.0.0.1:1"}}, logger=logger)
fs.pipe_file("{folder}/file", b"x")
assert fs.cat_file("{folder}/file") == b"x"
deadline = time.monotonic() + 30
while not any("127.0.0.1:1" in message for _level, message in lines):
    assert time.monotonic() < deadline, lines
    time.sleep(0.01)
"""
    in_a_new_process(cluster, code)


def test_python_knows_the_version():
    assert alluxio_dataset.__version__.count(".") == 2
    assert logging.getLogger("alluxio_dataset").name == "alluxio_dataset"
