"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

# CI's machines stall now and then: a slow example is not a wrong one.
settings.register_profile("distkv", deadline=None, print_blob=True)
settings.load_profile("distkv")
