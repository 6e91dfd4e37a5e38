"""The matrix: every workload under every package of faults on every engine, on one page."""
