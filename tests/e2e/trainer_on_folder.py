"""`trainer_on_folder.py FOLDER train …`: the real trainer, with the catalogue's tiny model from another folder."""

import sys
from pathlib import Path

from egrpo import catalogue
from egrpo.cli import main

entry = catalogue.MODELS["tiny-flux-shapes"]
catalogue.MODELS[entry.id] = entry.model_copy(update={"path": str(Path(sys.argv[1]).resolve())})
sys.exit(main(sys.argv[2:]))
