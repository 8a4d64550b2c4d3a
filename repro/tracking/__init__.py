"""MLflow, and nothing else that knows it: journals go in by `writer`, tidy rows come out by `reader`."""
