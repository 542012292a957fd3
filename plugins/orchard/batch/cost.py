"""What a batch will cost on a billed cluster, estimated before anything is submitted."""

from orchard_jobs.contract.manifest import ManifestHead
from orchard_jobs.errors import ConfigurationError

from orchard.settings import Settings

# Core-seconds a view: about twice those of the slowest machine that was measured, so that an estimate is on the safe side.
_CORE_SECONDS = {"efficientnet_lite0": 0.06, "efficientnet_lite2": 0.15, "resnet50": 0.2, "color_histogram": 0.02}


def executor_hours(head: ManifestHead, settings: Settings) -> float:
    """Return the hours of one executor that a manifest's images take, without the driver and the start of the cluster."""
    squares = head.actions.get("compute", 0) * len(head.backbone.views)
    core_seconds = squares * _CORE_SECONDS[head.backbone.name]
    return core_seconds / settings.jobs.executor_cores / 3600


def check_cost(head: ManifestHead, settings: Settings) -> str:
    """Return a note of what a manifest is estimated to cost.

    Raises:
        ConfigurationError: it is above the limit, on a target where executors are billed.
    """
    hours = executor_hours(head, settings)
    if settings.jobs.target != "local" and hours > settings.jobs.max_executor_hours:
        raise ConfigurationError(
            f"batch {head.batch_id} has {head.actions['compute']} images to compute, estimated at {hours:.1f} executor-hours; "
            f"the limit is ORCHARD_MAX_EXECUTOR_HOURS={settings.jobs.max_executor_hours:g}: raise it, or split the batch"
        )
    return f"about {hours:.2f} executor-hours of {settings.jobs.executor_cores} cores"
