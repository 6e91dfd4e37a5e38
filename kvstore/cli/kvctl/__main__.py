"""``python -m kvstore.cli.kvctl``."""

from kvstore.cli.kvctl import main

main()
