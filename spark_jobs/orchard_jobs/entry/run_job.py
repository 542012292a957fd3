import sys

from orchard_jobs.cli import main

sys.exit(main())
