"""Train, track and compare the variants of a published paper."""

__version__ = "0.1.0"
