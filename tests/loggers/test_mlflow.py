from __future__ import annotations

import pytest

from fulgurite.loggers import MLFlowLogger
from helpers.apart import run_apart

SETTINGS = {"MLFLOW_DISABLE_TELEMETRY": "true", "GIT_PYTHON_REFRESH": "quiet"}
MAKE = """
import os
import mlflow
from fulgurite.callbacks import ModelCheckpoint
from fulgurite.loggers import CSVLogger, MLFlowLogger

URI = "sqlite:///mlflow.db"

class WithHparams(Tiny):
    def __init__(self, width=3, optim=None):
        super().__init__([5, 3])
        self.save_hyperparameters()

def make(**settings):
    return MLFlowLogger("dkt", tracking_uri=URI, artifact_location="artifacts", **settings)

def read(logger):
    return mlflow.tracking.MlflowClient(URI).get_run(logger.run_id)

def history(logger, name):
    client = mlflow.tracking.MlflowClient(URI)
    return [(metric.step, metric.value) for metric in client.get_metric_history(logger.run_id, name)]
"""


@pytest.mark.slow
@pytest.mark.needs("mlflow", "sqlalchemy")
def test_metrics_and_hyper_parameters_read_back():
    found = run_apart(
        MAKE
        + """
logger = make(run_name="first", tags={"team": "a"})
model = WithHparams(optim={"lr": 0.1})
fit(logger=[logger, CSVLogger("logs")], model=model, max_epochs=2, log_every_n_steps=4)
run = read(logger)
answer({
    "val_loss": history(logger, "val_loss"),
    "train_loss": [step for step, _ in history(logger, "train_loss")],
    "params": run.data.params,
    "run": [run.info.status, run.info.run_name, run.data.tags["team"]],
})
""",
        **SETTINGS,
    )
    assert found == {
        "val_loss": [[3, 5.0], [7, 3.0]],
        "train_loss": [3, 7],
        "params": {"width": "3", "optim/lr": "0.1"},
        "run": ["FINISHED", "first", "a"],
    }


@pytest.mark.slow
@pytest.mark.needs("mlflow", "sqlalchemy")
def test_a_failed_run_says_so():
    found = run_apart(
        MAKE
        + """
class Fails(Tiny):
    def on_train_epoch_end(self):
        raise ValueError("broken")

logger = make()
try:
    fit(logger=logger, model=Fails(), log_every_n_steps=1)
except ValueError:
    answer(read(logger).info.status)
""",
        **SETTINGS,
    )
    assert found == "FAILED"


@pytest.mark.slow
@pytest.mark.needs("mlflow", "sqlalchemy")
def test_a_run_can_be_continued():
    found = run_apart(
        MAKE
        + """
first = make()
fit(logger=first, max_epochs=1)
second = make(run_id=first.run_id)
second.log_metrics({"more": 1.0}, step=9)
answer([second.experiment_id == first.experiment_id, history(second, "more"), history(second, "val_loss")])
""",
        **SETTINGS,
    )
    assert found == [True, [[9, 1.0]], [[3, 5.0]]]


@pytest.mark.slow
@pytest.mark.needs("mlflow", "sqlalchemy")
def test_checkpoints_go_up_when_the_run_has_ended_well():
    found = run_apart(
        MAKE
        + """
logger = make(log_model=True)
fit(ModelCheckpoint("out", monitor="val_loss"), logger=logger, model=Tiny([5, 3]), max_epochs=2)
client = mlflow.tracking.MlflowClient(URI)
(folder,) = client.list_artifacts(logger.run_id)
about = json.load(open(client.download_artifacts(logger.run_id, f"{folder.path}/metadata.json")))
files = [item.path for item in client.list_artifacts(logger.run_id, folder.path)]
answer([folder.path, about["score"], about["aliases"], files])
""",
        **SETTINGS,
    )
    folder = "epoch=1-step=8"
    assert found == [folder, 3.0, ["latest", "best"], [f"{folder}/epoch=1-step=8.ckpt", f"{folder}/metadata.json"]]


@pytest.mark.slow
@pytest.mark.needs("mlflow", "sqlalchemy")
def test_what_mlflow_refuses_is_shortened_or_sent_in_parts():
    found = run_apart(
        MAKE
        + """
logger = make(prefix="p")
logger.log_metrics({"a=b": 1.0, "text": "left out"}, step=1)
logger.log_hyperparams({f"p{i}": i for i in range(250)} | {"long": "x" * 10_000})
params = read(logger).data.params
answer([history(logger, "p-ab"), len(params), len(params["long"])])
""",
        **SETTINGS,
    )
    assert found == [[[1, 1.0]], 251, 6000]


@pytest.mark.slow
@pytest.mark.needs("mlflow", "sqlalchemy")
def test_without_an_address_it_writes_below_save_dir():
    found = run_apart(
        MAKE
        + """
logger = MLFlowLogger(save_dir="runs")
trainer = fit(ModelCheckpoint(), logger=logger, max_epochs=1)
client = mlflow.tracking.MlflowClient(logger._tracking_uri)
checkpoint = trainer.checkpoint_callback.best_model_path
expected = f"runs/{logger.name}/{logger.version}/checkpoints/epoch=0-step=4.ckpt"
answer([client.get_run(logger.run_id).info.status, checkpoint == os.path.abspath(expected)])
""",
        **SETTINGS,
    )
    assert found == ["FINISHED", True]


@pytest.mark.slow
@pytest.mark.needs("mlflow", "sqlalchemy")
def test_without_any_setting_the_user_interface_started_here_shows_it():
    found = run_apart(
        MAKE
        + """
import signal, socket, subprocess, time, urllib.request
logger = MLFlowLogger()
trainer = fit(ModelCheckpoint(), logger=logger, max_epochs=1)
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
command = [sys.executable, "-m", "mlflow", "ui", "--port", str(port), "--workers", "1"]
ui = subprocess.Popen(command, start_new_session=True, stdout=open("ui.txt", "w"), stderr=subprocess.STDOUT)
url = f"http://127.0.0.1:{port}/api/2.0/mlflow/runs/get?run_id={logger.run_id}"
try:
    for _ in range(240):
        try:
            run = json.load(urllib.request.urlopen(url, timeout=10))["run"]
            break
        except OSError as error:
            run, last = None, error
            if ui.poll() is not None:
                break
            time.sleep(0.5)
finally:
    os.killpg(ui.pid, signal.SIGTERM)
shown = None if run is None else sorted(m["key"] for m in run["data"]["metrics"])
checkpoint = trainer.checkpoint_callback.best_model_path
expected = f"mlruns/{logger.name}/{logger.version}/checkpoints/epoch=0-step=4.ckpt"
answer([shown, checkpoint, os.path.abspath(expected)])
""",
        **SETTINGS,
    )
    assert found[0] == ["epoch", "train_mean", "val_loss"]
    assert found[1] == found[2]


@pytest.mark.slow
@pytest.mark.needs("mlflow", "sqlalchemy")
def test_what_is_said_elsewhere_holds():
    found = run_apart(
        MAKE
        + """
import os
uris = [MLFlowLogger(tracking_uri="sqlite:///a.db")._tracking_uri]
uris.append(MLFlowLogger(save_dir="runs").save_dir)
mlflow.set_tracking_uri("sqlite:///b.db")
uris.append(MLFlowLogger()._tracking_uri)
os.environ["MLFLOW_TRACKING_URI"] = "sqlite:///c.db"
uris.append(MLFlowLogger(save_dir="runs")._tracking_uri)
answer(uris)
""",
        **SETTINGS,
    )
    assert found == ["sqlite:///a.db", "runs", "sqlite:///b.db", "sqlite:///c.db"]


def test_without_mlflow_it_says_what_to_install():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "mlflow", None)
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'fulgurite\[mlflow\]'"):
            MLFlowLogger()
