"""Whether HEIC can be read: the jobs decode by the extra `heif`, and Airflow plans by what is installed beside it."""

import importlib.util
from importlib.machinery import ModuleSpec


def heif_extension() -> ModuleSpec | None:
    """Return pi-heif's compiled module, which brings the decoder along; None where the extra is not installed."""
    return importlib.util.find_spec("_pi_heif")
