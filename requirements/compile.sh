#!/usr/bin/env bash
# Pin every environment from one resolution, so that a package that two of them share has one version. Needs uv.
set -euo pipefail
cd "$(dirname "$0")/.."
all=$(mktemp -d); trap 'rm -r "$all"' EXIT
pins() { uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url --no-emit-find-links "$@"; }
# `cuda` stands in place of `onnx`, on machines with a GPU.
jobs=(--extra audit --extra spark --extra onnx --extra tensorflow)
# orchard-jobs is built from this tree, so it is taken out of what is looked up.
sed -e '/"orchard-jobs\[audit\]"/d' -e '/^readme/d' pyproject.toml >"$all/pyproject.toml"
pins "$all/pyproject.toml" spark_jobs/pyproject.toml "${jobs[@]}" requirements/dev.in "$@" -o "$all/all.txt"
pins "$all/pyproject.toml" spark_jobs/pyproject.toml --extra audit -c "$all/all.txt" -o requirements/airflow.txt
pins spark_jobs/pyproject.toml "${jobs[@]}" -c "$all/all.txt" -o requirements/jobs.txt
pins requirements/dev.in -c "$all/all.txt" -o requirements/dev.txt
# Another Spark, and what is old beside it, with the same packages otherwise.
cat requirements/jobs.txt requirements/dev.txt | grep -vE '^(pyspark|numpy|pandas|pyarrow)=' >"$all/older.txt"
pins requirements/jobs35.in spark_jobs/pyproject.toml --extra spark --extra onnx --extra audit -c "$all/older.txt" -o requirements/jobs35.txt
