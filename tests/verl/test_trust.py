"""verl runs no code from a model folder, however its settings are spelled."""

from pathlib import Path

import pytest

pytest.importorskip("verl", reason="verl is not installed here: `make test-verl` runs this")

from omegaconf import OmegaConf

from siri.engines.verl.child import compose_config, refuse_trust
from siri.engines.verl.order import Order
from siri.errors import InputError
from tests.verl.support import tiny_verl


def test_a_composed_config_trusts_no_folder(tmp_path: Path) -> None:
    order = Order(tiny_verl(), tmp_path, tmp_path / "model", 0, 3, frozenset([3]), False)
    composed = OmegaConf.to_yaml(compose_config(order))
    assert "trust_remote_code: false" in composed
    assert "trust_remote_code: true" not in composed


@pytest.mark.parametrize("place", [{"a": {"trust_remote_code": True}}, {"a": [{"b": {"trust_remote_code": "yes"}}]}])
def test_trust_that_has_found_its_way_into_a_config_is_refused(place: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"^engine\.verl\.extra: sets trust_remote_code"):
        refuse_trust(OmegaConf.create(place))
