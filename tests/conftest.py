"""Its place puts this folder on the path, so that every test can import `standins`."""

import os

import pytest


@pytest.fixture(autouse=True, scope="session")
def decoded_cache_of_its_own(tmp_path_factory):
    """No test writes to the user's cache, or reads from it."""
    os.environ["MADGNET_BENCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))
