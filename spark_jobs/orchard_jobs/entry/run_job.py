import sys

from orchard_jobs.cli import main
from orchard_jobs.entry import take_installed_pyspark

take_installed_pyspark()
sys.exit(main())
