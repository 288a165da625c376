"""The tests of flows."""
