"""Scripts in the style of 1.x run as they are, and each old line is answered once with the line to write today."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
HERE, SRC = Path(__file__).parent, Path(__file__).parents[2] / "src"
ARGUMENTS = {
    "arguments": "--max_epochs 3 --gpus 0 --gradient_clip_val 0.5 --limit_train_batches 0.5 --size 32 --hidden 16"
    " --progress_bar_refresh_rate 0"
}
# script -> parts of the lines that it is told to write
TOLD = {
    "classifier": [
        "accelerator='cpu'",
        "enable_progress_bar=False",
        "enable_model_summary=False",
        "enable_checkpointing=False",
        "callbacks=[EarlyStopping(",
        "log_every_n_steps=2",
        "use it in on_validation_epoch_end(self)",
        "self.log(name, value, prog_bar=True)",
    ],
    "gan": [
        "self.save_hyperparameters(hparams)",
        "self.automatic_optimization = False",
        "Write on_train_epoch_end",
    ],
    "wgan": ["self.automatic_optimization = False", "Leave optimizer_idx out of optimizer_step", "train_dataloaders="],
    "sequence": [
        "self.log_dict(grad_norm(self, norm_type=2))",
        "callbacks=[GradientAccumulationScheduler(",
        "use it in on_train_epoch_end(self)",
        "use it in on_validation_epoch_end(self)",
        "use it in on_test_epoch_end(self)",
        "Write dataloaders=",
        "from fulgurite import LightningModule",
    ],
    "arguments": [
        "parser.add_argument('--accelerator')",
        "parser.add_argument('--size')",
        "Trainer(accelerator=args.accelerator",
        "Data(size=args.size",
        "accelerator='cpu'",
    ],
    "resume": [
        "callbacks=[ModelSummary(max_depth=1)]",
        "callbacks=[ModelCheckpoint(...)]",
        "dirpath='saved', filename='{epoch}-{val_loss:.2f}'",
        "every_n_epochs=1",
        "trainer.fit(model, ckpt_path=",
        "check_finite=True",
    ],
    "autoencoder": [
        "callbacks=[ModelSummary(max_depth=-1)]",
        "Do it at the end of training_step",
        "Do it at the end of validation_step",
        "use it in on_train_epoch_end(self)",
        "use it in on_predict_epoch_end(self)",
        "there is one device",
        "find_usable_cuda_devices",
    ],
    "old_callbacks": [
        "trainer.sanity_checking",
        "trainer.strategy",
        "trainer.lightning_module",
        "trainer.num_devices",
        "setup(self, trainer, pl_module, stage)",
        "Write on_train_batch_end.",
        "Collect what you need in on_train_batch_end",
        "load_state_dict(self, state_dict)",
        "state_dict(self)",
    ],
    "cluster": [
        "use_distributed_sampler=False",
        "reload_dataloaders_every_n_epochs=1",
        "CombinedLoader(loaders, mode='min_size')",
        "precision='16-mixed'",
        "Set self.prepare_data_per_node = False",
        "Leave optimizer_idx out of lr_scheduler_step",
        "Leave optimizer_idx out of configure_gradient_clipping",
        "trainer.lr_scheduler_configs",
        "from fulgurite import profilers",
        "flush_logs_every_n_steps=10",
    ],
    "tuning": [
        "import torchmetrics",
        "Tuner(trainer).lr_find(model)",
        "Tuner(trainer).scale_batch_size(model)",
        "callbacks=[StochasticWeightAveraging(swa_lrs=1e-2)]",
    ],
}
# All of them in one process, for most of the time is spent on imports; what has been said is forgotten in between.
DRIVER = """
import contextlib, io, json, os, sys, tempfile, traceback, warnings
import fulgurite.__main__ as program
from fulgurite.utilities import rank_zero
results, folder = {}, sys.argv[2]
for name, arguments in json.loads(sys.argv[1]).items():
    os.chdir(tempfile.mkdtemp())
    rank_zero._warned.clear()
    output, error = io.StringIO(), None
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(output):
        warnings.simplefilter("always")
        try:
            program.main(["run", os.path.join(folder, f"{name}.py"), *arguments.split()])
        except BaseException:
            error = traceback.format_exc()
    said = [str(w.message) for w in caught if "1.x era" in str(w.message)]
    results[name] = {"error": error, "said": said, "last": output.getvalue().strip().splitlines()[-1:]}
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"}
    scripts = json.dumps({name: ARGUMENTS.get(name, "") for name in TOLD})
    command = [sys.executable, "-c", DRIVER, scripts, str(HERE / "scripts")]
    folder = tmp_path_factory.mktemp("scripts")
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("script", TOLD)
def test_a_script_of_the_1x_era_runs_as_it_is(ran: dict[str, Any], script: str) -> None:
    assert ran[script]["error"] is None, ran[script]["error"]
    assert ran[script]["last"][0].startswith("done")


@pytest.mark.parametrize("script", TOLD)
def test_each_old_line_is_answered_once_with_the_line_to_write(ran: dict[str, Any], script: str) -> None:
    said = ran[script]["said"]
    missing = [line for line in TOLD[script] if sum(line in message for message in said) != 1]
    assert not missing, said
    assert len(said) == len(set(said))


def test_run_takes_scripts_and_modules(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import sys, lightning; print(lightning.__version__, __name__, sys.argv)")
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    for how in (["script.py"], ["-m", "script"]):
        command = [sys.executable, "-m", "fulgurite", "run", *how, "--x", "1"]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert done.stdout.startswith("2.6.6 __main__") and done.stdout.rstrip().endswith("'--x', '1']"), done.stderr


SPAWNS = """
from multiprocessing import get_context

import lightning


def say(generation):
    print(generation, lightning.LightningModule.__module__, flush=True)
    if generation < 2:
        child = get_context("spawn").Process(target=say, args=(generation + 1,))
        child.start()
        child.join()


if __name__ == "__main__":
    say(0)
"""


@pytest.mark.multi
def test_run_reaches_processes_that_are_spawned(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SPAWNS)
    command = [sys.executable, "-m", "fulgurite", "run", "script.py"]
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"{i} fulgurite.core.module" for i in range(3)], done.stderr


def test_run_says_how_it_is_used(tmp_path: Path) -> None:
    from fulgurite.__main__ import main

    for arguments in ([], ["eject"], ["run"], ["run", "nowhere.py"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert "run" in str(stop.value) or "nowhere.py" in str(stop.value)
