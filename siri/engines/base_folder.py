"""The folder that `model.base` names, looked through before anything is read from it."""

import os
from pathlib import Path

from siri.config import RunConfig
from siri.engines import kind_of
from siri.engines.model_folder import require_data
from siri.engines.smollm2 import SMOLLM2, smollm2_folder
from siri.errors import InputError
from siri.reading import expand


def base_folder(config: RunConfig) -> Path:
    """The folder with the model that a config starts from; a hub name's files are fetched by engines that take one.

    `smollm2-135m` is fetched and converted for every engine, unless it is here already.

    Raises InputError for a folder that is not there or holds more than data.
    """
    if config.model.base == SMOLLM2:
        folder = smollm2_folder()
    elif kind_of(config).takes_hub_names:
        from siri.engines.local.pretrained import model_folder

        folder = model_folder(config.model.base)
    else:
        folder = expand(config.model.base, "model.base")
    if not os.path.isdir(folder):
        raise InputError(
            f"model.base={config.model.base}: neither `laptop` nor `smollm2-135m` nor a folder with a model"
        )
    require_data(folder)
    return folder
