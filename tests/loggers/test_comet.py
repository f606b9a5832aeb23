from __future__ import annotations

import pytest

from fulgurite.loggers import CometLogger
from helpers.apart import run_apart

SETTINGS = {"COMET_LOGGING_CONSOLE": "ERROR"}
MAKE = """
import zipfile
from pathlib import Path
from fulgurite.loggers import CometLogger

class WithHparams(Tiny):
    def __init__(self, width=3, optim=None):
        super().__init__([5, 3])
        self.save_hyperparameters()

def make(**settings):
    return CometLogger(**{"project": "dkt", "online": False, "offline_directory": "comet", "name": "first", **settings})

def messages(logger, kind):
    '''What the archive of an offline experiment holds, as `comet upload` would send it.'''
    logger.experiment.end()
    (path,) = Path("comet").glob(f"{logger.version}*.zip")
    lines = zipfile.ZipFile(path).read("messages.json").decode().splitlines()
    found = [message["payload"] for message in map(json.loads, lines) if message["type"] == kind]
    return found
"""


@pytest.mark.slow
@pytest.mark.needs("comet_ml")
def test_an_offline_experiment_read_back():
    found = run_apart(
        MAKE
        + """
logger = make()
fit(logger=logger, model=WithHparams(optim={"lr": 0.1}), max_epochs=2, log_every_n_steps=4)
named = [logger.name, logger.experiment.get_name(), logger.version == logger.experiment.get_key(), logger.save_dir]
metrics = [m["metric"] for m in messages(logger, "metric_msg")]
params = {m["param"]["paramName"]: m["param"]["paramValue"] for m in messages(logger, "parameter_msg")}
answer({
    "named": named,
    "val_loss": [(m["step"], m["epoch"], m["metricValue"]) for m in metrics if m["metricName"] == "val_loss"],
    "train_loss": [m["step"] for m in metrics if m["metricName"] == "train_loss"],
    "params": [params["width"], params["optim|lr"]],
    "status": [m["value"] for m in messages(logger, "log_other") if m["key"] == "status"],
})
""",
        **SETTINGS,
    )
    assert found == {
        "named": ["dkt", "first", True, "comet"],
        "val_loss": [[3, 0, 5.0], [7, 1, 3.0]],
        "train_loss": [3, 7],
        "params": [3, 0.1],
        "status": ["success"],
    }


@pytest.mark.slow
@pytest.mark.needs("comet_ml")
def test_a_prefix_old_keywords_and_pickling():
    found = run_apart(
        MAKE
        + """
import pickle
logger = CometLogger(project_name="old", offline=True, save_dir="comet", prefix="p")
logger.log_metrics({"x": 1.0}, step=3)
copy = pickle.loads(pickle.dumps(logger))
same = copy.version == logger.version
answer([logger.name, same, [m["metric"]["metricName"] for m in messages(logger, "metric_msg")
                            if not m["metric"]["metricName"].startswith(("sys.", "process"))]])
""",
        **SETTINGS,
    )
    assert found == ["old", True, ["p_x"]]


@pytest.mark.slow
def test_comet_is_imported_when_a_logger_is_made_and_only_then():
    found = run_apart("import sys\nfrom fulgurite.loggers import CometLogger\nanswer('comet_ml' in sys.modules)")
    assert found is False


def test_without_comet_it_says_what_to_install():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMET_DISABLE_AUTO_LOGGING", "1")
        patch.setitem(__import__("sys").modules, "comet_ml", None)
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'fulgurite\[comet\]'"):
            CometLogger()
