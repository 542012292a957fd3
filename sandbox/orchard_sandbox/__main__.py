"""`python -m orchard_sandbox <command>`."""

import sys

from orchard_sandbox.stack.cli import main

sys.exit(main())
