"""Load jobs and the progress bar."""

import io
import pickle

import pytest
from conftest import wait_for

from alluxio_dataset import AlluxioClient, LoadState
from alluxio_dataset.client import _bytes
from alluxio_dataset.progress import Bar, line_of


@pytest.fixture
def client(cluster):
    return AlluxioClient(worker_hosts=",".join(cluster.hosts))


@pytest.fixture
def filled(fs, folder):
    fs.pipe({f"{folder}/{index:02}.bin": bytes([index]) * 50_000 for index in range(40)})
    return f"s3://{folder}"


def ended(client, path):
    return wait_for(
        lambda: (seen := client.load_progress(path)).state.is_final and seen, "the load's end", 60
    )


def test_a_load_from_submit_to_end(client, filled):
    assert client.submit_load(filled) is True
    state, content = ended(client, filled)
    assert state is LoadState.SUCCEEDED, content
    counts = client.load_progress(filled).counts
    assert counts["filesDone"] == counts["filesTotal"] == 40
    assert counts["bytesDone"] == counts["bytesTotal"] == 40 * 50_000
    assert counts["failureCount"] == 0


def test_every_option_of_a_load(client, filled):
    taken = client.submit_load(
        filled,
        verify=True,
        bandwidth="1GB",
        partial_listing=True,
        skip_if_exists=True,
        file_filter=r".*/1\d\.bin",
    )
    assert taken
    seen = ended(client, filled)
    assert seen.state is LoadState.SUCCEEDED, seen
    assert seen.counts["filesDone"] == 10, "the filter leaves ten"
    assert client.submit_load(filled, metadata_only=True)
    assert ended(client, filled).state is LoadState.SUCCEEDED


def test_a_load_is_stopped(client, filled):
    assert client.submit_load(filled, bandwidth=64 * 1024)
    assert client.stop_load(filled) is True
    assert ended(client, filled).state is LoadState.STOPPED
    assert client.stop_load(filled) is False


def test_a_load_that_is_waited_for(client, filled):
    seen = client.load(filled, timeout=60)
    assert seen.state is LoadState.SUCCEEDED
    with pytest.raises(TimeoutError, match="goes on"):
        client.load(filled, timeout=0, bandwidth=64 * 1024)
    client.stop_load(filled)


def test_loads_that_cannot_be(client, folder):
    with pytest.raises(FileNotFoundError, match="no load"):
        client.load_progress(f"s3://{folder}/never")
    with pytest.raises(ValueError, match="full URI"):
        client.submit_load("data/without/scheme")
    with pytest.raises(ValueError, match="is not a size"):
        client.submit_load(f"s3://{folder}", bandwidth="fast")
    nobody = AlluxioClient(worker_hosts="127.0.0.1:1")
    with pytest.raises(ConnectionError, match="127.0.0.1:1"):
        nobody.submit_load(f"s3://{folder}")
    with pytest.raises(ValueError, match="etcd_hosts or worker_hosts"):
        AlluxioClient()


def test_a_client_goes_to_other_processes(client, filled):
    again = pickle.loads(pickle.dumps(client))
    assert again.load(filled).state is LoadState.SUCCEEDED


def test_a_path_is_loaded_when_the_file_system_is_made(cluster, client, filled):
    cluster.file_system(preload_path=filled)
    assert ended(client, filled).state is LoadState.SUCCEEDED


def test_sizes():
    sizes = {"200MB": 200 << 20, "1.5Gi": 3 << 29, "64k": 64 << 10, "10": 10, "2MiB/s": 2 << 20}
    assert {text: _bytes("bandwidth", text) for text in sizes} == sizes


COUNTS = {"filesDone": 1, "filesTotal": 4, "bytesDone": 512, "bytesTotal": 2048, "bytesPerSecond": 2**20}


def test_the_text_of_a_bar():
    line = line_of("RUNNING", {**COUNTS, "etaSeconds": 9, "failureCount": 2})
    assert line == (
        "[########......................]  25% 1/4 files 512 B/2.0 KiB 1.0 MiB/s 9 s left 2 failed RUNNING"
    )
    assert line_of("RUNNING", {}) == "RUNNING"
    assert "100%" in line_of("SUCCEEDED", {"filesDone": 0})


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_in_a_terminal_is_one_line():
    terminal = Terminal()
    with Bar("load x", stream=terminal) as bar:
        bar.show("RUNNING", COUNTS)
        bar.show("SUCCEEDED", {})
    written = terminal.getvalue()
    assert written.count("\r") == 2 and written.count("\n") == 1 and written.endswith("\n")


def test_a_bar_is_not_shown_where_nobody_sees_it():
    pipe = io.StringIO()
    with Bar("load x", stream=pipe) as bar:
        bar.show("RUNNING", COUNTS)
    assert pipe.getvalue() == ""
    with Bar("load x", wanted=True, stream=pipe) as bar:
        bar.show("RUNNING", COUNTS)
        bar.show("RUNNING", COUNTS)
    assert pipe.getvalue().count("\n") == 1


def test_a_bar_in_a_notebook_is_updated(monkeypatch):
    import sys
    import types

    shown = []

    class ZMQInteractiveShell:
        pass

    class Handle:
        def update(self, data, raw):
            shown.append(data["text/plain"])

    def display(data, raw, display_id):
        shown.append(data["text/plain"])
        return Handle()

    modules = {
        "IPython": types.SimpleNamespace(get_ipython=ZMQInteractiveShell),
        "IPython.display": types.SimpleNamespace(display=display),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    with Bar("load x") as bar:
        bar.show("RUNNING", COUNTS)
        bar.show("SUCCEEDED", {})
    assert len(shown) == 2 and shown[1] == "load x SUCCEEDED"
