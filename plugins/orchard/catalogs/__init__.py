"""Where the tables are registered as external ones: one module a catalog, and what they share in `entries`."""
