"""A store, a clock and processes whose every step is drawn from one seed, so that it can be replayed."""
