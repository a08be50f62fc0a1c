"""``python -m oegw`` is ``oegw``."""

import sys

from oegw.cli import main

sys.exit(main())
