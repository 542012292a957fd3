"""What a table is: its columns, partition columns and meaning. Types are spelled in a neutral form."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """One column: its name, its neutral type, what docs/reference/tables.md says of it, and whether null is allowed."""

    name: str
    type: str
    meaning: str = ""
    is_nullable: bool = False


@dataclass(frozen=True)
class Table:
    """One published table; `partition_by` columns are strings that the log and the path hold, not the files.

    A table that `is_new` was added after the first release: a warehouse of an earlier one gets it with its next run.
    """

    name: str
    partition_by: tuple[str, ...]
    columns: tuple[Column, ...]
    meaning: str
    is_new: bool = False

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of the columns in the files, in order."""
        return tuple(column.name for column in self.columns)


# Columns of several tables.
URI = Column("image_uri", "string", "`s3://bucket/` and the raw key, never percent-encoded")
CONTENT = Column("content_sha256", "string", "SHA-256 of the file's bytes: 64 lower-case hex digits")
MANIFEST = Column("manifest_digest", "string", "names the batch version that the row belongs to")
JOBS = Column("jobs_version", "string", "version of `orchard-jobs` that wrote the row")
