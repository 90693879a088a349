"""Threads, forks, spawned processes, event loops, Ctrl-C."""

import asyncio
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import in_a_new_process, wait_for

from alluxio_dataset import AlluxioFileSystem


@pytest.fixture
def files(fs, folder):
    files = {f"{folder}/{index:03}": os.urandom(20_000 + index) for index in range(64)}
    fs.pipe(files)
    return files


def test_many_threads_share_a_file_system(cluster, files):
    fs = cluster.file_system()
    with ThreadPoolExecutor(16) as pool:
        for _ in range(3):
            assert dict(zip(files, pool.map(fs.cat_file, files))) == files


def test_many_threads_share_a_file(fs, folder):
    data = os.urandom(4_000_000)
    fs.pipe_file(f"{folder}/large", data)
    with fs.open(f"{folder}/large") as file, ThreadPoolExecutor(8) as pool:
        places = range(0, len(data), 100_000)
        parts = pool.map(lambda start: file.read_at(start, 100_000), places)
        assert b"".join(parts) == data


def test_the_gil_is_free_while_a_call_waits(cluster, folder):
    # A worker and a store that take the connection and never answer.
    silent = [__import__("socket").create_server(("127.0.0.1", 0)) for _ in range(2)]
    hosts = [f"127.0.0.1:{it.getsockname()[1]}" for it in silent]
    fs = cluster.file_system(
        worker_hosts=hosts[0],
        target_options={**cluster.store.options, "endpoint_url": f"http://{hosts[1]}"},
    )
    ended = threading.Event()

    def wait():
        with pytest.raises(OSError):
            fs.info(f"{folder}/file")
        ended.set()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    wait_for(lambda: thread.is_alive(), "the thread began")
    # With the GIL held this loop would not run before the call's time is over.
    turns = sum(1 for _ in range(1_000_000))
    assert turns == 1_000_000 and not ended.is_set()
    for it in silent:
        it.close()


def _check(fs, files, answers):
    try:
        assert fs.cat(list(files)) == files
        with fs.open(next(iter(files))) as file:
            assert file.read() == next(iter(files.values()))
        assert fs.exists(next(iter(files)))
        answers.put(None)
    except BaseException as error:
        answers.put(repr(error))


@pytest.mark.parametrize("way", ["fork", "spawn", "forkserver"])
def test_other_processes_use_the_same_file_system(cluster, files, way):
    fs = AlluxioFileSystem(**cluster.arguments)
    assert fs.cat(list(files)) == files, "it is in use before the others begin"
    context = multiprocessing.get_context(way)
    answers = context.Queue()
    others = [context.Process(target=_check, args=(fs, files, answers)) for _ in range(4)]
    for other in others:
        other.start()
    assert [answers.get(timeout=120) for _ in others] == [None] * 4
    for other in others:
        other.join(60)
        assert other.exitcode == 0
    assert fs.cat(list(files)) == files, "and after they ended"


def test_a_file_that_is_open_is_read_on_in_a_forked_child(cluster, folder):
    fs = AlluxioFileSystem(**cluster.arguments)
    data = os.urandom(3_000_000)
    fs.pipe_file(f"{folder}/file", data)
    file = fs.open(f"{folder}/file")
    assert file.read(1_000_000) == data[:1_000_000]
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if file.read() == data[1_000_000:] else 3)
        except BaseException:
            os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert file.read() == data[1_000_000:], "the parent's position is its own"


def test_a_fork_while_other_threads_read(cluster, files):
    fs = AlluxioFileSystem(**cluster.arguments)
    stop = threading.Event()

    def read():
        while not stop.is_set():
            assert fs.cat(list(files)) == files

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        context = multiprocessing.get_context("fork")
        for _ in range(5):
            answers = context.Queue()
            child = context.Process(target=_check, args=(fs, files, answers))
            child.start()
            assert answers.get(timeout=120) is None
            child.join(60)
            assert child.exitcode == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_awaited_calls(cluster, files, folder):
    async def use():
        fs = cluster.file_system(asynchronous=True)
        assert await fs._cat(list(files)) == files
        assert (await fs._info(next(iter(files))))["size"] == 20_000
        names = [entry["name"] for entry in await fs._ls(folder)]
        assert names == sorted(files)
        await fs._pipe_file(f"{folder}/new", b"awaited")
        assert await fs._cat_file(f"{folder}/new", start=-7, end=-5) == b"aw"
        answers = await fs._cat_ranges([f"{folder}/new"] * 2, [0, 3], [3, 7])
        assert answers == [b"awa", b"ited"]
        with pytest.raises(FileNotFoundError):
            await fs._cat_file(f"{folder}/nothing")
        await fs._rm(f"{folder}/new")
        assert not await fs._exists(f"{folder}/new")
        together = await asyncio.gather(*(fs._cat_file(name) for name in files))
        assert together == list(files.values())

    asyncio.run(use())


def test_a_cancelled_call_ends(cluster, folder):
    silent = __import__("socket").create_server(("127.0.0.1", 0))
    endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"

    async def use():
        fs = cluster.file_system(
            asynchronous=True, target_options={**cluster.store.options, "endpoint_url": endpoint}
        )
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(fs._info(f"{folder}/file"), 0.2)

    asyncio.run(use())
    silent.close()


def test_ctrl_c_ends_a_wait(cluster, folder):
    silent = __import__("socket").create_server(("127.0.0.1", 0))
    endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
    code = f"""
import threading, os, signal
# Who was started in the background by a shell ignores Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
options = {{**ARGUMENTS["target_options"], "endpoint_url": {endpoint!r}}}
fs = AlluxioFileSystem(**{{**ARGUMENTS, "target_options": options}})
threading.Timer(0.5, os.kill, (os.getpid(), {int(signal.SIGINT)})).start()
try:
    fs.info("{folder}/file")
except KeyboardInterrupt:
    sys.exit(0)
sys.exit(5)
"""
    in_a_new_process(cluster, code)
    silent.close()
