#!/usr/bin/env bash
# Pin every environment from one resolution, so that a package that two of them share has one version. Needs uv.
# Each pin has the hashes of its files, so that an index can give no others.
set -euo pipefail
cd "$(dirname "$0")/.."
all=$(mktemp -d); trap 'rm -r "$all"' EXIT
resolve() { uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url --no-emit-find-links "$@"; }
pins() { resolve --generate-hashes "$@"; }
# `cuda` stands in place of `onnx`, on machines with a GPU.
jobs=(--extra audit --extra spark --extra onnx --extra tensorflow --extra heif)
# orchard-jobs is built from this tree, so it is taken out of what is looked up.
sed -e '/"orchard-jobs\[audit\]"/d' -e '/^readme/d' pyproject.toml >"$all/pyproject.toml"
resolve "$all/pyproject.toml" spark_jobs/pyproject.toml "${jobs[@]}" requirements/{dev,containers,audit,uv}.in "$@" -o "$all/all.txt"
pins "$all/pyproject.toml" spark_jobs/pyproject.toml --extra audit --extra heif -c "$all/all.txt" -o requirements/airflow.txt
pins spark_jobs/pyproject.toml "${jobs[@]}" -c "$all/all.txt" -o requirements/jobs.txt
for name in dev containers audit uv; do pins "requirements/$name.in" -c "$all/all.txt" -o "requirements/$name.txt"; done
# Daft allows no newer Arrow.
grep -v '^pyarrow=' "$all/all.txt" >"$all/older.txt"
pins requirements/daft.in -c "$all/older.txt" -o requirements/daft.txt
# Another Spark, and what is old beside it, with the same packages otherwise.
grep -vE '^(pyspark|numpy|pandas|pyarrow)=' "$all/all.txt" >"$all/older.txt"
pins requirements/jobs35.in spark_jobs/pyproject.toml --extra spark --extra onnx --extra heif --extra audit -c "$all/older.txt" -o requirements/jobs35.txt
