"""``python -m iokernel.demo``."""

import sys

from iokernel.demo import main

sys.exit(main())
