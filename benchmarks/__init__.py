"""Programs that measure flows, side by side with the raw limit of the same server."""
