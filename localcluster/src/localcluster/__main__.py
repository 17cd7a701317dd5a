"""Entry point of `python3 -m localcluster`."""

import sys

from localcluster import cli

sys.exit(cli.main(sys.argv[1:]))
