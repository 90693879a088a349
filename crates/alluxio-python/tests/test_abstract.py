"""fsspec's own suites for file systems: copy, get, put, open, pipe. Nothing is left out."""

import secrets

import pytest
from fsspec.tests.abstract import (
    AbstractCopyTests,
    AbstractFixtures,
    AbstractGetTests,
    AbstractOpenTests,
    AbstractPipeTests,
    AbstractPutTests,
)


class Fixtures(AbstractFixtures):
    @pytest.fixture
    def fs(self, cluster):
        return cluster.file_system()

    @pytest.fixture
    def fs_path(self):
        return f"data/{secrets.token_hex(6)}"

    @pytest.fixture
    def fs_join(self):
        return lambda *parts: "/".join(str(part) for part in parts)


class TestCopy(AbstractCopyTests, Fixtures):
    pass


class TestGet(AbstractGetTests, Fixtures):
    pass


class TestPut(AbstractPutTests, Fixtures):
    pass


class TestOpen(AbstractOpenTests, Fixtures):
    pass


class TestPipe(AbstractPipeTests, Fixtures):
    pass
