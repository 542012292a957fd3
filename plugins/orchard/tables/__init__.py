"""The published tables: their logs, the one commit rule, the batch versions that they hold, and the jobs' reports."""
