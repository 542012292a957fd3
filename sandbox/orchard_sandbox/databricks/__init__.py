"""The Databricks stand-in: a workspace whose runs are truly executed."""

# The volume that there is from the start.
VOLUME = "/Volumes/main/orchard/jobs"
# Unity Catalog's service credential for the S3 stand-in.
CREDENTIAL = "orchard"
