"""Where tests register tables."""

WAREHOUSE = "s3://cluster/warehouse"


DATABASE = "orchard"


TO_GLUE, TO_UNITY = ["register", "--glue", DATABASE], ["register", "--unity", "main.ml"]
