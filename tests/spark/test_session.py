"""The session is of the kind that was asked for, and takes every setting on each of them."""

import os
import sys

import pyspark
from orchard_jobs import session
from pyspark.sql import SparkSession


def test_the_session_is_of_the_kind_that_was_asked_for(spark: SparkSession) -> None:
    """Else a run of these tests for another Spark, or for Spark Connect, would show nothing."""
    assert type(spark).__module__.startswith("pyspark.sql.connect") == ("SPARK_REMOTE" in os.environ)
    assert spark.version == pyspark.__version__
    assert spark.version.startswith("3.5.") == sys.prefix.endswith("jobs35")


def test_every_setting_is_taken(spark: SparkSession) -> None:
    assert {key: spark.conf.get(key) for key in session._SETTINGS} == session._SETTINGS
