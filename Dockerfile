ARG BASE=python:3.13-slim-trixie@sha256:ffb752e139c0a19692a43af8d8523b274222dd68eebad5d583b45c2201c6e30a

FROM ${BASE} AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /src
COPY requirements/uv.txt requirements/
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements/uv.txt \
 && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends binutils >/dev/null
COPY requirements/airflow.txt requirements/containers.txt requirements/
ENV UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy
RUN python3 -m venv --without-pip /opt/orchard \
 && uv pip sync --no-cache --require-hashes --python /opt/orchard/bin/python requirements/airflow.txt requirements/containers.txt
COPY pyproject.toml README.md ./
COPY spark_jobs spark_jobs
COPY plugins/orchard plugins/orchard
RUN uv pip install --no-cache --no-deps --python /opt/orchard/bin/python ./spark_jobs .
COPY requirements/slim.sh requirements/
RUN requirements/slim.sh /opt/orchard s3 sqs sts 'sso*' iam ec2 emr emr-serverless glue kms logs secretsmanager ssm

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="orchard-airflow" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
RUN groupadd --gid 50000 orchard && useradd --uid 50000 --gid orchard --create-home --home-dir /home/orchard orchard \
 && install -d -o orchard -g orchard /opt/airflow /opt/airflow/logs /opt/airflow/pycache /opt/airflow/secrets /warehouse \
 && touch /opt/airflow/airflow.cfg
COPY --from=build /opt/orchard /opt/orchard
COPY dags /opt/airflow/dags
ENV PATH=/opt/orchard/bin:$PATH \
    AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/airflow/dags \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    AIRFLOW__CORE__EXECUTOR=LocalExecutor \
    AIRFLOW__SCHEDULER__MP_START_METHOD=forkserver \
    AIRFLOW__CORE__MP_FORKSERVER_PRELOAD=orchard.preload \
    AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT=120 \
    PYTHONUNBUFFERED=1
USER 50000
WORKDIR /opt/airflow
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=10s --start-period=120s --retries=6 \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/api/v2/monitor/health', timeout=8)"]
ENTRYPOINT ["airflow"]
CMD ["api-server"]
