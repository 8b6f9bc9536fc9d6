"""`python -m madgnet_bench` is `madgnet-bench`."""

import sys

from madgnet_bench.cli import main

if __name__ == "__main__":
    sys.exit(main())
