"""One row of one client, in a process of its own: wall time, CPU time, peak memory.

    python contender.py NAME SCENE.json ROW > figures.json

The row is done twice: `first` by a client that has seen nothing, with the workers warm; `again` by the
same client.
"""

import json
import random
import re
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor

RANGES, RANGE_BYTES, THREADS = 1_000, 64 * 1024, 8


class Product:
    def __init__(self, scene):
        from alluxio_dataset import AlluxioFileSystem

        self.fs = AlluxioFileSystem(
            worker_hosts=scene["worker"], target_protocol="s3", target_options=scene["s3"]
        )
        self.cat = self.fs.cat_file
        self.list = self.fs.ls

    def ranges(self, path, starts):
        return self.fs.cat_ranges([path] * len(starts), starts, [s + RANGE_BYTES for s in starts])

    def small(self, path, size):
        return self.fs.cat_file(path)

    def done(self):
        pass


class Sdk:
    """The published SDK: alluxiofs 1.0.0 for names and ranges, alluxio 1.0.0 for whole files."""

    def __init__(self, scene):
        import s3fs
        from alluxiofs import AlluxioFileSystem

        host, port = scene["worker"].split(":")
        self.fs = AlluxioFileSystem(
            worker_hosts=host,
            worker_http_port=int(port),
            fs=s3fs.S3FileSystem(**scene["s3"]),
            options={"alluxio.worker.page.store.page.size": "1MB"},
        )
        self.list = self.fs.ls

    def cat(self, path):
        return self.fs.alluxio.read("s3://" + path)

    def ranges(self, path, starts):
        return [self.fs.cat_file(path, start, start + RANGE_BYTES) for start in starts]

    def small(self, path, size):
        return self.fs.cat_file(path, 0, size)

    def done(self):
        errors = self.fs.get_error_metrics()["error_counts"]
        assert not errors, f"the SDK fell back to s3fs: {errors}"


class S3fs:
    def __init__(self, scene):
        import s3fs

        # With its cache of listings a second `ls` would ask nobody, however old the answer is.
        self.fs = s3fs.S3FileSystem(**scene["s3"], use_listings_cache=False)
        self.cat = self.fs.cat_file
        self.list = self.fs.ls

    def ranges(self, path, starts):
        return self.fs.cat_ranges([path] * len(starts), starts, [s + RANGE_BYTES for s in starts])

    def small(self, path, size):
        return self.fs.cat_file(path)

    def done(self):
        pass


def calls(contender, scene):
    """What each row does, and how many bytes it must give."""
    large, many = scene["large"], scene["many"]
    starts = random.Random(7).sample(range(scene["large_bytes"] - RANGE_BYTES), RANGES)
    small = [f"{scene['small']}/{index:05}" for index in range(scene["small_files"])]

    def cat():
        return len(contender.cat(large))

    def ranges():
        return sum(map(len, contender.ranges(large, starts)))

    def ls():
        assert len(contender.list(many)) == scene["many_files"]
        return 0

    def files():
        with ThreadPoolExecutor(THREADS) as pool:
            sizes = pool.map(lambda path: len(contender.small(path, scene["small_bytes"])), small)
            return sum(sizes)

    return {
        "cat": (cat, scene["large_bytes"]),
        "ranges": (ranges, RANGES * RANGE_BYTES),
        "ls": (ls, 0),
        "small-files": (files, scene["small_files"] * scene["small_bytes"]),
    }


def measured(call, expected_bytes):
    usage, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    assert call() == expected_bytes
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "cpu_seconds_per_gib": cpu / expected_bytes * 2**30 if expected_bytes else None,
        "peak_rss_mib": peak_rss_kib() / 1024,
    }


def peak_rss_kib():
    """Of this program alone: getrusage's would count what forked it."""
    with open("/proc/self/status") as status:
        return int(re.search(r"VmHWM:\s*(\d+) kB", status.read()).group(1))


def main():
    name, scene_file, row = sys.argv[1:]
    with open(scene_file) as file:
        scene = json.load(file)
    contender = {"product": Product, "sdk": Sdk, "s3fs": S3fs}[name](scene)
    call, expected_bytes = calls(contender, scene)[row]
    answer = {which: measured(call, expected_bytes) for which in ("first", "again")}
    contender.done()
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
