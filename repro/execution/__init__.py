"""Runs on this machine: one in a process of its own (`worker`), many side by side (`sweep`)."""
