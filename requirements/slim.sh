#!/usr/bin/env bash
# Take out of an environment what no container loads: slim.sh ENVIRONMENT AWS-SERVICE...
# Arrow's Flight and S3, headers, tests, symbols of debuggers, locales other than the UI's default, and AWS services but those named.
set -euo pipefail
python=$1/bin/python
cd "$1"/lib/python3.*/site-packages
shift
rm -rf pyarrow/{include,src} pyarrow/libarrow_{flight,s3}* pyarrow/_{flight,s3fs}* pyarrow/libarrow_python_flight* pyarrow/_pyarrow_cpp_tests*
ln -sf libarrow_python.so.*.*.* pyarrow/libarrow_python.so
kept=()
for service in "$@"; do kept+=(-not -name "$service"); done
find botocore/data -mindepth 1 -maxdepth 1 -type d "${kept[@]}" -exec rm -rf {} +
if [ -d babel ]; then find babel/locale-data -name '*.dat' -not -name 'en*' -not -name root.dat -delete; fi
find . -name '*.so*' -type f -exec strip --strip-unneeded {} + 2>/dev/null || true
find . -depth -type d \( -name tests -o -name __pycache__ \) -exec rm -rf {} +
find . -type f \( -name '*.pyx' -o -name '*.pxd' -o -name '*.pyi' \) -delete
# What is left still goes together.
"$python" -B -c 'import boto3, pandas, pyarrow.compute, pyarrow.dataset, pyarrow.parquet; boto3.client("s3", region_name="any")'
