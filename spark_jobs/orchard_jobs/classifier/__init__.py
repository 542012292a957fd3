"""A classifier that is exact and order-free: class moments, discriminant analysis, calibration, and its one file. No Spark."""
