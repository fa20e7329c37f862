"""``python -m hashbackdoor_bench`` is `bench`."""

import sys

from hashbackdoor_bench.cli import main

sys.exit(main())
