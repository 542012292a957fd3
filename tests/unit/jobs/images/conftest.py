"""What the tests of the images room share: the sample data when it is there, and one export a session."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from orchard_jobs.contract.backbones import backbone_named
from orchard_jobs.images import loaded_backbone
from orchard_jobs.images.loaded_backbone import LoadedBackbone, load_backbone, prepare_backbone
from orchard_jobs.storage import Warehouse
from support.repository import SHARED


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real sample images; skips where it is not there."""
    if not SHARED.is_dir():
        pytest.skip(f"no sample images at {SHARED}: set ORCHARD_SHARED_DATA")
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def _no_former_export() -> Iterator[None]:
    """Backbones are exported here, by the code under test: the environment's own was exported when it was built."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loaded_backbone, "_BUNDLED", Path("/nowhere"))
        yield


@pytest.fixture(scope="session")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """A warehouse for the whole session, so that a backbone is exported once."""
    return Warehouse.at(str(tmp_path_factory.mktemp("warehouse")))


def _loaded(name: str, engine: str, warehouse: Warehouse) -> LoadedBackbone:
    """Load a backbone as workers do."""
    backbone = backbone_named(name, engine)
    with warnings.catch_warnings():
        # TensorFlow and tf2onnx warn of numpy and protobuf while they are imported; that is theirs.
        warnings.simplefilter("ignore")
        prepare_backbone(backbone, warehouse)
        return load_backbone(backbone, warehouse)


@pytest.fixture(scope="session")
def lite0_onnx(warehouse: Warehouse) -> LoadedBackbone:
    return _loaded("efficientnet_lite0", "onnx", warehouse)


@pytest.fixture(scope="session")
def lite0_tensorflow(warehouse: Warehouse) -> LoadedBackbone:
    return _loaded("efficientnet_lite0", "tensorflow", warehouse)


@pytest.fixture(scope="session")
def lite2_onnx(warehouse: Warehouse) -> LoadedBackbone:
    return _loaded("efficientnet_lite2", "onnx", warehouse)


@pytest.fixture(scope="session")
def lite2_tensorflow(warehouse: Warehouse) -> LoadedBackbone:
    return _loaded("efficientnet_lite2", "tensorflow", warehouse)
