"""`python -m testbed`, which is what hack/kube runs."""

import sys

from testbed.cli import main

sys.exit(main())
