import sys

from orchard_jobs import cli, entry

entry.take_installed_pyspark()
sys.exit(cli.main())
