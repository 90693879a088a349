"""Real parts for the tests: an S3 server, embedded workers, and file systems on them.

``ALLUXIO_DATASET_BINARY`` names the product's binary; versitygw is found in PATH (``make test`` sets
both). Everything listens on 127.0.0.1, writes below pytest's temporary folder, and ends with the tests.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import alluxio_dataset

BUCKET = "data"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(condition, what: str, seconds: float = 30):
    """Polls until a condition holds; what it returns."""
    deadline = time.monotonic() + seconds
    while True:
        if answer := condition():
            return answer
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.02)


def in_a_new_process(cluster, code: str, first: str = "") -> str:
    """What code prints in an interpreter of its own; ``ARGUMENTS`` are the cluster's. ``first`` runs
    before the package is imported."""
    head = "import json, sys\nfrom alluxio_dataset import AlluxioFileSystem\nARGUMENTS = json.load(sys.stdin)\n"
    done = subprocess.run(
        [sys.executable, "-c", first + head + code],
        input=json.dumps(cluster.arguments),
        text=True,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Server:
    """A process that listens on a port."""

    def __init__(self, name: str, port: int, command: list, environment: dict, log: Path):
        self.name, self.port, self.log = name, port, log
        self.command, self.environment = command, environment
        self.start()

    def start(self) -> None:
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
            )
        wait_for(self._listens, f"{self.name} on port {self.port}")

    def _listens(self) -> bool:
        assert self.process.poll() is None, f"{self.name} ended: {self.log.read_text()[-2000:]}"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Store:
    """An S3 server with one bucket."""

    def __init__(self, folder: Path):
        self.root = folder / "s3"
        (self.root / BUCKET).mkdir(parents=True)
        self.key, self.secret = secrets.token_hex(10), secrets.token_hex(20)
        port = free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        self.server = Server(
            "versitygw",
            port,
            ["versitygw", "--port", f"127.0.0.1:{port}", "--quiet", "--keep-alive", "posix", self.root],
            {"ROOT_ACCESS_KEY": self.key, "ROOT_SECRET_KEY": self.secret},
            folder / "versitygw.log",
        )

    @property
    def options(self) -> dict:
        """``target_options`` for it."""
        return {"endpoint_url": self.endpoint, "key": self.key, "secret": self.secret}

    def s3fs(self):
        import s3fs

        return s3fs.S3FileSystem(
            endpoint_url=self.endpoint, key=self.key, secret=self.secret, skip_instance_cache=True
        )


class Cluster:
    """Embedded workers over a store."""

    def __init__(self, folder: Path, store: Store, workers: int = 3):
        folder.mkdir(parents=True, exist_ok=True)
        self.store = store
        ports = [free_port() for _ in range(workers)]
        self.hosts = [f"127.0.0.1:{port}" for port in ports]
        self.workers = []
        for index, port in enumerate(ports):
            # JSON is YAML too.
            config = {
                "ufs": {
                    "uri": f"s3://{BUCKET}",
                    "endpoint": store.endpoint,
                    "key": store.key,
                    "secret": store.secret,
                },
                "cluster": {"membership": {"type": "static", "workers": self.hosts}},
                "worker": {
                    "listen": f"127.0.0.1:{port}",
                    "advertised_host": "127.0.0.1",
                    "page_store": {"directory": str(folder / f"pages-{index}"), "capacity": "1Gi"},
                },
            }
            file = folder / f"worker-{index}.yaml"
            file.write_text(json.dumps(config))
            file.chmod(0o600)
            self.workers.append(
                Server(
                    f"worker {index}",
                    port,
                    [os.environ["ALLUXIO_DATASET_BINARY"], "worker", "--config", file],
                    {},
                    folder / f"worker-{index}.log",
                )
            )

    @property
    def arguments(self) -> dict:
        """Of a file system over the store's own credentials."""
        return {
            "worker_hosts": ",".join(self.hosts),
            "target_protocol": "s3",
            "target_options": self.store.options,
        }

    def file_system(self, **arguments) -> alluxio_dataset.AlluxioFileSystem:
        """A file system with a client of its own."""
        return alluxio_dataset.AlluxioFileSystem(
            **{"skip_instance_cache": True, **self.arguments, **arguments}
        )

    def stop(self) -> None:
        for worker in self.workers:
            worker.kill()


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    assert shutil.which("versitygw"), "versitygw is not in PATH: run `make test-python`"
    store = Store(tmp_path_factory.mktemp("store"))
    yield store
    store.server.kill()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory, store):
    """A cluster that nobody may stop."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), store)
    yield cluster
    cluster.stop()


@pytest.fixture
def own_cluster(tmp_path, store):
    """A cluster of one test's own, to stop workers of."""
    cluster = Cluster(tmp_path / "cluster", store)
    yield cluster
    cluster.stop()


@pytest.fixture
def fs(cluster):
    return cluster.file_system()


@pytest.fixture
def folder(store):
    """A folder of the bucket for one test, by its name without the scheme."""
    return f"{BUCKET}/{secrets.token_hex(6)}"
