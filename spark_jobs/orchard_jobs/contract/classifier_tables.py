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
CLASSIFIERS = Table(
    "classifiers",
    (),
    (
        Column("model_id", "string", "digest of the backbone, the batch versions, and what a label means"),
        Column("backbone", "string", "full name of the backbone"),
        Column("classes", "list<string>", "the c classes, sorted"),
        Column("n", "int64", "number of labelled rows that the classifier was fitted on"),
        Column("shrinkage", "float64", "share of the covariance that is a multiple of the unit matrix: 0 to 1"),
        Column("temperature", "float64", "what scores are divided by, so that their softmax is a probability"),
        Column("max_distance", "float64", "a row farther from the mean of its class is none of the classes"),
        Column("mean", "list<float64>", "mean of the classes' means, of square roots of features: d values"),
        Column(
            "whitening",
            "list<float64>",
            "inverse of the Cholesky factor of the covariance: its lower triangle, column by column",
        ),
        Column("centres", "list<float64>", "the classes' means about `mean`, whitened: c x d values, row by row"),
        Column("log_priors", "list<float64>", "logarithm of each class's prior: c values"),
        Column("class_of", "list<struct<label, class>>", "what each label of the classes means"),
        Column("left_out", "list<struct<class, rows>>", "classes with fewer rows than `ORCHARD_CLASS_ROWS`"),
        Column("labels", "list<string>", "the l labels of the rows, sorted"),
        Column("counts", "list<int64>", "rows of each label: l values"),
        Column("means", "list<float64>", "mean of each label's square roots of features: l x d values, row by row"),
        Column("scatter", "list<float64>", "scatter of the rows about their label's mean, upper triangle, row by row"),
        Column("merged_from", "list<struct<batch_id, manifest_digest>>", "the batch versions that the classifier was fitted on"),
        Column("held_out", "string", "how rows were held out: `batches`, or `contents` where too few classes stand in several"),
        Column("folds", "int64", "number of parts that were held out, one after the other"),
        Column("held_out_rows", "int64", "number of held-out rows that were classified"),
        Column("held_out_right", "int64", "how many of them got their own class"),
        Column("accuracy", "float64", "held_out_right / held_out_rows"),
        Column("created_at", "timestamp", "when the classifier was fitted"),
    ),
    "One row for each fitted classifier. A row never changes.",
    is_new=True,
)
