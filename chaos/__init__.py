"""Break clusters on purpose, and prove whether any promise was broken."""
