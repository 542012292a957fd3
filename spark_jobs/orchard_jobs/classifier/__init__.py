"""A classifier that is exact and order-free: class moments, discriminant analysis, calibration. numpy only, no files."""
