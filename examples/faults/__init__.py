"""One's own machine under faults."""
