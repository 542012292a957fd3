"""The tables of recognition. Column names are API."""

from orchard_jobs.contract.table import CONTENT, JOBS, MANIFEST, URI, Column, Table

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
PREDICTIONS = Table(
    "predictions",
    ("model_id", "batch_id"),
    (
        URI,
        CONTENT,
        Column("label", "string", "name of the folder that holds the image, as in `features`", is_nullable=True),
        Column("predicted", "string", "the likeliest class"),
        Column("score", "float64", "its calibrated probability: of 100 rows of 0.9, about 90 are right"),
        Column("second", "string", "the class that is second"),
        Column("second_score", "float64", "its calibrated probability"),
        Column("distance", "float64", "Mahalanobis distance to the mean of the likeliest class"),
        Column(
            "is_known",
            "bool",
            "whether the distance is not above the classifier's largest. False: an image of none of its classes",
        ),
        Column(
            "is_seen",
            "bool",
            "whether the classifier may have been fitted on the image: its batch is one of the classifier's, or an earlier "
            "batch version computed its vector",
        ),
        MANIFEST,
        JOBS,
    ),
    "One row for each good image of a batch and each classifier that was current when the batch was planned.",
    is_new=True,
)
EVALUATIONS = Table(
    "evaluations",
    (),
    (
        Column("model_id", "string", "the classifier"),
        Column("batch_id", "string", "the batch"),
        Column("manifest_digest", "string", "names the batch version that was predicted"),
        Column("rows", "int64", "rows of the batch version: unseen, seen and unlabelled ones"),
        Column("unseen_rows", "int64", "labelled rows of a class that the classifier has never seen: a fair test"),
        Column("unseen_right", "int64", "of them, rows that got their own class"),
        Column("unseen_among_three", "int64", "of them, rows whose own class is among the likeliest three"),
        Column("unseen_known", "int64", "of them, rows with `is_known`"),
        Column("unseen_score", "float64", "their mean `score`. Null: there are none", is_nullable=True),
        Column("seen_rows", "int64", "labelled rows of a class that the classifier may have been fitted on"),
        Column("seen_right", "int64", "of them, rows that got their own class"),
        Column("unlabelled_rows", "int64", "rows without a label, or whose label is in no class of the classifier"),
        Column("unlabelled_known", "int64", "of them, rows with `is_known`"),
        Column(
            "unlabelled_score",
            "float64",
            "their mean `score`: an estimate of the share that is right. Null: there are none",
            is_nullable=True,
        ),
        Column(
            "confusion",
            "list<struct<class, predicted, rows>>",
            "unseen rows by their class and the predicted one, sorted; pairs without a row are left out",
        ),
    ),
    "How a classifier did on a batch version. A row never changes.",
    is_new=True,
)
