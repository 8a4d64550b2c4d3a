"""What is measured, against which peers, and the record of past figures: `python -m benchmarks.run`."""
