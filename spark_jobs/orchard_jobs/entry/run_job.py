"""The script that spark-submit runs: the driver of one job, with the command line of `orchard_jobs.cli`."""

import sys

from orchard_jobs import cli, entry

entry.take_installed_pyspark()
sys.exit(cli.main())
