"""Its place puts this folder on the path, so that every test can import `standins`."""

import os
import signal

import pytest


@pytest.fixture(autouse=True, scope="session")
def decoded_cache_of_its_own(tmp_path_factory):
    """No test writes to the user's cache, or reads from it."""
    os.environ["MADGNET_BENCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True, scope="session")
def interrupts_are_heard():
    """Children of a process that ignores Ctrl-C, as one in the background of a script does, would ignore it too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
