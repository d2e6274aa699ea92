"""The harness of the chaos runs uses the test bed's package, which lies in hack/."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "hack"))
