"""model.base as a hub name, offline: what the hub's own cache holds is found there, anything else is one line."""

from pathlib import Path

import pytest

from siri.engines.local.pretrained import model_folder
from siri.errors import InputError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache as its client lays it out, with one model; no network is asked."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    model = tmp_path / "models--owner--name"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("a" * 40)
    (model / "snapshots" / ("a" * 40)).mkdir(parents=True)
    (model / "snapshots" / ("a" * 40) / "config.json").write_text("{}")
    return model


def test_a_hub_name_is_the_folder_of_its_files(cache: Path) -> None:
    assert model_folder("owner/name") == cache / "snapshots" / ("a" * 40)


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert model_folder(str(tmp_path)) == tmp_path


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("owner/other", "^model.base=owner/other: cannot be fetched from the hub .*`hf download owner/other"),
        ("nowhere", "^model.base=nowhere: neither `laptop` nor a folder with a model nor a hub name"),
        ("/not/here", "^model.base=/not/here: neither `laptop` nor a folder"),
    ],
)
def test_anything_else_is_one_line(cache: Path, base: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        model_folder(base)
