"""Train, track and compare the variants of a published paper."""
