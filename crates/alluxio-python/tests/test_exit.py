"""The interpreter's end, with threads under way."""

import socket

from conftest import in_a_new_process

#: What is left of the interpreter goes slowly: whoever comes back to it then is ended by it.
LINGER = """
import time
class Lingers:
    def __del__(self, sleep=time.sleep):
        sleep(0.6)
sys.lingers = Lingers()
"""


def test_an_answer_that_is_being_told_is_waited_for(cluster, fs, folder):
    fs.pipe_file(f"{folder}/file", b"content")
    told = in_a_new_process(
        cluster,
        LINGER
        + f"""
import fsspec
fs = AlluxioFileSystem(**ARGUMENTS)
wake = fs.loop.call_soon_threadsafe
def wake_slowly(*args, **kwargs):
    handle = wake(*args, **kwargs)
    time.sleep(0.3)
    print("told", flush=True)
    return handle
fs.loop.call_soon_threadsafe = wake_slowly
assert fsspec.asyn.sync(fs.loop, fs._cat_file, "{folder}/file") == b"content"
""",
    )
    # Once by the caller, and once by the client's thread.
    assert told == "told\ntold\n"


def test_who_still_waits_is_left_waiting(cluster):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        told = in_a_new_process(
            cluster,
            LINGER
            + f"""
import threading
from alluxio_dataset import AlluxioClient
client = AlluxioClient(worker_hosts="127.0.0.1:{silent.getsockname()[1]}")
def ask():
    client.load_progress("s3://data/nothing")
    print("came back", flush=True)
threading.Thread(target=ask, daemon=True).start()
time.sleep(0.3)
print("main ends", flush=True)
""",
        )
    assert told == "main ends\n"


def test_hooks_of_others_may_still_read(cluster, fs, folder):
    fs.pipe_file(f"{folder}/file", b"content")
    told = in_a_new_process(
        cluster,
        "fs = AlluxioFileSystem(**ARGUMENTS)",
        first=f"""
import atexit
def last():
    print(fs.cat_file("{folder}/file").decode(), fs.open("{folder}/file").read().decode())
atexit.register(last)
""",
    )
    assert told == "content content\n"


def test_arrow_gives_back_before_the_end(cluster):
    """A thread that needs the interpreter a moment after main has ended, as those of PyArrow do."""
    told = in_a_new_process(
        cluster,
        """
import atexit, threading, pyarrow
ended = threading.Event()
threading.Thread(target=lambda: (ended.wait(), print("gave back", flush=True)), daemon=True).start()
atexit.register(ended.set)
""",
    )
    assert told == "gave back\n"
