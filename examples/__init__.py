"""Programs that use flows, each runnable as its first lines say."""
