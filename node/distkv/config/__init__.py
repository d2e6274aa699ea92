"""Configuration: one typed schema for file, environment and flags.

`load` is the way in; `Config` is what a process is started with.
"""

from distkv.config.loading import ConfigError, Problem, load
from distkv.config.schema import Config
from distkv.config.units import Address

__all__ = ["Address", "Config", "ConfigError", "Problem", "load"]
