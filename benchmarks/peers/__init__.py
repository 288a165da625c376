"""Programs of other engines, each executed by the Python of an environment of its own."""
