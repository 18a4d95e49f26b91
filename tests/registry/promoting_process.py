"""A process that applies a decision as soon as a file appears, and says how that went."""

import json
import sys
import time
from pathlib import Path

from rpo_pipeline.params import PromotionParams
from rpo_pipeline.records import Decision, RunAddress, from_json
from rpo_pipeline.registry import aliases

if __name__ == "__main__":
    uri, version, gate, promotion, folder = sys.argv[1:]
    settings = PromotionParams.model_validate_json(promotion)
    Path(folder, f"ready-{version}").touch()
    while not Path(folder, "go").exists():
        time.sleep(0.005)
    run = RunAddress(uri)
    result = aliases.apply_decision(
        run, version, from_json(Decision, json.loads(gate)), settings, Path(folder)
    )
    sys.stdout.write(json.dumps(result))
