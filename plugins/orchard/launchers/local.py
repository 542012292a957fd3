"""Target `local`: spark-submit on this machine with the jobs' own Python, or a Spark Connect server that this one reaches."""

import fcntl
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import BaseOperator
from airflow.sdk.log import mask_secret
from orchard_jobs import entry
from orchard_jobs.contract.backbones import Backbone
from orchard_jobs.contract.environment import of_job
from orchard_jobs.contract.layout import backbone_path
from orchard_jobs.escaping import escaping_logger
from orchard_jobs.local_spark import local_spark_conf
from orchard_jobs.storage import Warehouse

from orchard.deployment.jobs_python import prepare_backbone
from orchard.launchers.request import JobRequest, check_deployed, input_digest_template, job_argv, skip_without_work
from orchard.settings import Settings

log = escaping_logger(__name__)

# Bash takes a value of its environment for one word, whatever it holds.
_DIGEST = '"$ORCHARD_INPUT_DIGEST"'


@contextmanager
def _one_at_a_time(name: str) -> Iterator[None]:
    with (Path(tempfile.gettempdir()) / f"orchard-{os.getuid()}-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class LocalLauncher:
    """Runs jobs on the machine of the Airflow worker: through SparkSubmitOperator, or as clients of a Spark Connect server."""

    settings: Settings

    def operator(self, request: JobRequest) -> BaseOperator:
        """Return a SparkSubmitOperator in the pool `spark`; with a Spark Connect server a BashOperator that runs its client."""

        def before(context: Any) -> None:
            skip_without_work(self.settings.warehouse, request, context)
            os.environ.update(self._job_variables())

        if self.settings.local.spark_remote is not None:
            return self._client(request)
        return SparkSubmitOperator(
            task_id=request.stage,
            trigger_rule=request.trigger_rule,
            pool="spark",
            application=str(Path(entry.__path__[0]) / "run_job.py"),
            application_args=job_argv(request, self.settings),
            conn_id=self.settings.local.spark_conn_id,
            spark_binary=str(Path(self.settings.local.jobs_python).with_name("orchard-spark-submit")),
            driver_memory=self.settings.local.driver_memory,
            conf=local_spark_conf(self.settings.local.class_archive),
            name=f"orchard-{request.stage}",
            pre_execute=before,
        )

    def _client(self, request: JobRequest) -> BashOperator:
        """Return a BashOperator that runs the client of a Spark Connect server.

        The client computes nothing, so Airflow's own Python runs it: no Java and no network is needed here.
        """
        command = [sys.executable, "-m", "orchard_jobs.cli", *job_argv(request, self.settings, digest=_DIGEST)]

        def before(context: Any) -> None:
            skip_without_work(self.settings.warehouse, request, context)
            # Only now, when Airflow has recorded the rendered fields: the address may hold a token.
            context["task"].env |= of_job(os.environ) | self._job_variables() | self._spark_remote()

        return BashOperator(
            task_id=request.stage,
            trigger_rule=request.trigger_rule,
            pool="spark",
            bash_command="exec " + " ".join(word if word == _DIGEST else shlex.quote(word) for word in command),
            env={"ORCHARD_INPUT_DIGEST": input_digest_template(request)},
            append_env=False,
            pre_execute=before,
        )

    def _spark_remote(self) -> dict[str, str]:
        address = str(self.settings.local.spark_remote)
        for token in re.findall(r"(?<=token=)[^;]+", address):
            mask_secret(token)
        return {"SPARK_REMOTE": address}

    def prepare(self, backbone: Backbone) -> None:
        """Check the weights, export the backbone once, and see that it runs here, with the jobs' own Python.

        Raises:
            ConfigurationError: the weights are not available, or the jobs' environment does not exist.
        """
        if self.settings.local.spark_remote is not None:
            check_deployed(self.settings, backbone)
            return
        warehouse = Warehouse.at(self.settings.warehouse)
        # Two batches that start together would both export the backbone, each at half the speed.
        with _one_at_a_time(backbone.export_id):
            if backbone.engine != "onnx" or warehouse.size(backbone_path(backbone.export_id)) is None:
                prepare_backbone(self.settings, os.environ | self._job_variables(), is_run_here=True)

    def _job_variables(self) -> dict[str, str]:
        """Return what the job's processes get in their environment: their Python, the S3 endpoint and credentials, their owner.

        It goes through the process's environment, not the operator's templated fields, so no secret shows in the UI.
        """
        environment = {
            "PYSPARK_PYTHON": self.settings.local.jobs_python,
            "PYSPARK_DRIVER_PYTHON": self.settings.local.jobs_python,
            "ORCHARD_OWNER_PID": str(os.getpid()),
        }
        hook = AwsBaseHook(self.settings.aws_conn_id, client_type="s3")
        values = {"AWS_ENDPOINT_URL": hook.conn_config.get_service_endpoint_url("s3"), "AWS_REGION": hook.region_name}
        credentials = hook.get_session().get_credentials()
        if credentials is not None:
            frozen = credentials.get_frozen_credentials()
            values["AWS_ACCESS_KEY_ID"] = frozen.access_key
            values["AWS_SECRET_ACCESS_KEY"] = frozen.secret_key
            values["AWS_SESSION_TOKEN"] = frozen.token
        return environment | {name: value for name, value in values.items() if value}
