"""The tables of recognition. Column names are API."""

from orchard_jobs.contract.table import Column, Table

CLASS_MOMENTS = Table(
    "class_moments",
    ("backbone", "batch_id"),
    (
        Column("manifest_digest", "string", "names the batch version that the class moments belong to"),
        Column("unlabelled", "list<string>", "the labels of `ORCHARD_UNLABELLED` that counted as no label, sorted"),
        Column("labels", "list<string>", "the labels, sorted; each has at least one row"),
        Column("counts", "list<int64>", "number of rows of each label"),
        Column("means", "list<float64>", "mean of y = sqrt(max(features, 0)) of each label: l x d values, row by row"),
        Column(
            "scatter",
            "list<float64>",
            "sum of the outer products of y about the mean of its label, for all labels together, upper triangle, row by row",
        ),
    ),
    "The statistics of a batch version's labelled rows that a classifier merges. A cache: small batches have no row.",
    is_new=True,
)
