"""`python -m orchard_sandbox <command>`."""

import sys

from orchard_sandbox.cli import main

sys.exit(main())
