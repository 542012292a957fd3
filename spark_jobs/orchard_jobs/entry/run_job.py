import sys

from orchard_jobs import cli, entry

entry.prefer_installed_pyspark()
sys.exit(cli.main())
