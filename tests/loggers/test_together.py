"""Several loggers on one run, what is left after a kill, and logging through a library that we know nothing of."""

from __future__ import annotations

import pytest

from helpers.apart import run_apart

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("wandb", "mlflow", "sqlalchemy", "comet_ml"),
]
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "WANDB_SILENT": "true",
    "WANDB_ERROR_REPORTING": "false",
    "COMET_LOGGING_CONSOLE": "ERROR",
}
READ = """
import csv, glob, os, signal
from pathlib import Path

URI = "sqlite:///mlflow.db"

def from_csv():
    with open("logs/csv/version_0/metrics.csv") as file:
        return [[int(row["step"]), float(row["val_loss"])] for row in csv.DictReader(file) if row["val_loss"]]

def from_tensorboard():
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator("logs/tb/version_0").Reload()
    return [[e.step, e.value] for e in events.Scalars("val_loss")]

def mlflow_run():
    import mlflow
    client = mlflow.MlflowClient(URI)
    (run,) = client.search_runs([client.get_experiment_by_name("dkt").experiment_id])
    return client, run

def from_mlflow():
    client, run = mlflow_run()
    return [[m.step, m.value] for m in client.get_metric_history(run.info.run_id, "val_loss")]

def from_wandb():
    from wandb.proto.wandb_internal_pb2 import Record
    import struct
    (path,) = glob.glob("wandb/offline-run-*/run-*.wandb")
    content, at, found = Path(path).read_bytes(), 7, []
    while at + 7 <= len(content):  # blocks of 32 KiB; a record of this small run lies in one
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        record = Record.FromString(content[at + 7 : at + 7 + length])
        at += 7 + length
        row = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
        if "val_loss" in row:
            found.append([row["trainer/global_step"], row["val_loss"]])
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
    return found

def make():
    from fulgurite.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
    return [
        CSVLogger("logs", "csv"),
        TensorBoardLogger("logs", "tb"),
        WandbLogger(project="dkt", offline=True),
        MLFlowLogger("dkt", tracking_uri=URI, artifact_location="artifacts"),
    ]
"""


def test_all_loggers_together_hold_the_same_rows():
    found = run_apart(
        READ
        + """
import zipfile
from fulgurite.loggers import CometLogger
comet = CometLogger(project="dkt", online=False, offline_directory="comet")
fit(logger=[*make(), comet], model=Tiny([5, 3]), max_epochs=2, log_every_n_steps=4)
import wandb
wandb.finish()
wandb.teardown()
comet.experiment.end()
(archive,) = Path("comet").glob("*.zip")
lines = zipfile.ZipFile(archive).read("messages.json").decode().splitlines()
metrics = [m["payload"]["metric"] for m in map(json.loads, lines) if m["type"] == "metric_msg"]
from_comet = [[m["step"], m["metricValue"]] for m in metrics if m["metricName"] == "val_loss"]
answer([from_csv(), from_tensorboard(), from_wandb(), from_mlflow(), from_comet, mlflow_run()[1].info.status])
""",
        **SETTINGS,
    )
    assert found == [[[3, 5.0], [7, 3.0]]] * 5 + ["FINISHED"]


def test_after_a_kill_the_rows_of_finished_epochs_are_there_and_the_run_is_not_called_finished():
    found = run_apart(
        READ
        + """
class Killed(Tiny):
    def on_train_batch_start(self, batch, batch_idx):
        if self.current_epoch == 2:
            os.kill(os.getpid(), signal.SIGKILL)

child = os.fork()
if not child:
    fit(logger=make()[:2] + make()[3:], model=Killed([5, 3, 2]), max_epochs=3, log_every_n_steps=1)
_, status = os.waitpid(child, 0)
answer([os.WTERMSIG(status), from_csv(), from_tensorboard(), from_mlflow(), mlflow_run()[1].info.status])
""",
        **SETTINGS,
    )
    assert found == [9, *[[[3, 5.0], [7, 3.0]]] * 3, "RUNNING"]


def test_ten_lines_log_to_any_library():
    found = run_apart(
        READ
        + """
import mlflow
from fulgurite import Callback

class ToMlflow(Callback):
    def on_fit_start(self, trainer, module):
        mlflow.set_tracking_uri(URI)
        mlflow.set_experiment("dkt")
        mlflow.start_run()

    def on_validation_end(self, trainer, module):
        if not trainer.sanity_checking:
            mlflow.log_metrics({k: v.item() for k, v in trainer.callback_metrics.items()}, step=trainer.global_step)

    def on_exception(self, trainer, module, exception):
        mlflow.end_run("FAILED")

class Fails(Tiny):
    def on_train_start(self):
        if self.trainer.max_epochs == 1:
            raise ValueError("broken")

fit(ToMlflow(), model=Fails([5, 3]), max_epochs=2)
mlflow.end_run()
rows, status = from_mlflow(), mlflow_run()[1].info.status
mlflow.delete_run(mlflow_run()[1].info.run_id)
try:
    fit(ToMlflow(), model=Fails([5, 3]), max_epochs=1)
except ValueError:
    answer([rows, status, mlflow_run()[1].info.status])
""",
        **SETTINGS,
    )
    assert found == [[[4, 5.0], [8, 3.0]], "FINISHED", "FAILED"]


def test_mlflows_autolog_works_under_the_alias():
    found = run_apart(
        """
import fulgurite.compat
fulgurite.compat.install_alias()
import mlflow
mlflow.set_tracking_uri("sqlite:///mlflow.db")
mlflow.pytorch.autolog(log_models=False)
import lightning.pytorch as pl
stop = pl.callbacks.EarlyStopping("val_loss", patience=4)
with mlflow.start_run() as run:
    fit(stop, model=Tiny([5, 3]), max_epochs=2)
client = mlflow.MlflowClient()
params = client.get_run(run.info.run_id).data.params
steps = [m.step for m in client.get_metric_history(run.info.run_id, "val_loss")]
answer([client.get_run(run.info.run_id).info.status, steps, params["optimizer_name"], params["patience"]])
""",
        **SETTINGS,
    )
    assert found == ["FINISHED", [0, 1], "SGD", "4"]
