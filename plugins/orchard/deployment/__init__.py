"""The jobs' package and environment: how a cluster, or this machine, gets what runs the jobs."""
