"""PCA that is exact and order-free: moments of a batch, fits on merged moments, projections. numpy only, no files."""
