"""The workloads W1 to W12, each a function that adds to the figures of a run."""
