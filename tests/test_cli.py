"""The command line: sub-commands, configuration files, classes by name, links, optimizers, the saved configuration."""

from __future__ import annotations

import inspect
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

pytest.importorskip("jsonargparse", reason="needs the extra cli")
pytest.importorskip("typeshed_client", reason="needs the extra cli")

from fulgurite import LightningModule, Trainer
from fulgurite.callbacks import EarlyStopping, ModelCheckpoint, Timer
from fulgurite.cli import (
    LightningArgumentParser,
    LightningCLI,
    LRSchedulerCallable,
    OptimizerCallable,
    ReduceLROnPlateau,
    SaveConfigCallback,
    instantiate_class,
)
from fulgurite.demos.boring_classes import BoringDataModule, BoringModel
from fulgurite.utilities.exceptions import MisconfigurationException

SMALL = [
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=2",
    "--trainer.limit_val_batches=1",
    "--trainer.limit_test_batches=1",
    "--trainer.limit_predict_batches=1",
    "--trainer.accelerator=cpu",
    "--trainer.logger=CSVLogger",
    "--trainer.logger.save_dir=logs",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--seed_everything=1",
]
pytestmark = pytest.mark.filterwarnings("ignore:.*is not empty")


class Encoder(nn.Module):
    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.size = size


class CommandLineNet(BoringModel):
    """A model.

    Args:
        width: how wide it is.
    """

    def __init__(self, width: int = 3, rate: float = 0.1, encoder: Encoder | None = None) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.width, self.rate, self.encoder = width, rate, encoder


class TakesMore(BoringModel):
    def __init__(self, width: int = 3, **more: Any) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.width, self.more = width, more


class CommandLineData(BoringDataModule):
    def __init__(self, width: int = 5) -> None:
        super().__init__()
        self.width = width


@pytest.fixture(autouse=True)
def no_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py"])


def cli(*args: str, **kwargs: Any) -> LightningCLI:
    return LightningCLI(**{"model_class": CommandLineNet, "args": [*args], **kwargs})


def printed(capsys: pytest.CaptureFixture[str], *args: str, **kwargs: Any) -> dict[str, Any]:
    with pytest.raises(SystemExit) as exit_:
        cli(*args, "--print_config", **kwargs)
    assert exit_.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_each_sub_command_runs_the_trainers_method(command: str) -> None:
    made = cli(command, *SMALL, "--model.width=7", datamodule_class=CommandLineData)
    assert made.subcommand == command and made.trainer.state.fn == command and made.trainer.state.finished
    assert (
        made.model.width == 7
        and isinstance(made.datamodule, CommandLineData)
        and made.datamodule.trainer is made.trainer
    )


def test_without_run_the_objects_are_made_only() -> None:
    made = cli("--trainer.max_epochs=3", run=False)
    assert made.trainer.max_epochs == 3 and made.trainer.state.fn is None and made.subcommand is None
    assert made.datamodule is None


def test_arguments_may_come_as_a_dictionary() -> None:
    assert cli(args={"trainer": {"max_epochs": 4}, "model": {"width": 2}}, run=False).model.width == 2


def test_configuration_files_then_the_command_line() -> None:
    Path("run.yaml").write_text("model:\n  width: 4\n  rate: 0.5\n")
    Path("model.yaml").write_text("rate: 0.7\n")
    made = cli("--config=run.yaml", "--model=model.yaml", "--model.width=9", run=False)
    assert (made.model.width, made.model.rate) == (9, 0.7)


def test_the_environment_where_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as environment:
        environment.setenv("PL_MODEL__WIDTH", "8")
        assert cli(run=False).model.width == 3
        assert cli(run=False, parser_kwargs={"default_env": True}).model.width == 8


def test_parser_kwargs_by_sub_command() -> None:
    Path("fit.yaml").write_text("model:\n  width: 6\n")
    kwargs = {"fit": {"default_config_files": ["fit.yaml"]}}
    assert cli("fit", *SMALL, parser_kwargs=kwargs).model.width == 6
    assert cli("validate", *SMALL, parser_kwargs=kwargs).model.width == 3


def test_any_model_and_data_module_by_name() -> None:
    made = cli(
        "fit",
        "--model=CommandLineNet",
        "--model.width=2",
        "--data=CommandLineData",
        "--data.width=1",
        *SMALL,
        model_class=None,
    )
    assert type(made.model) is CommandLineNet and made.model.width == 2 and type(made.datamodule) is CommandLineData


def test_a_function_may_make_the_model() -> None:
    def make(width: int, double: bool = True) -> CommandLineNet:
        return CommandLineNet(width * 2 if double else width)

    assert cli("--model.width=4", model_class=make, run=False).model.width == 8


def test_objects_within_objects_by_class_path() -> None:
    path = f"{Encoder.__module__}.Encoder"
    made = cli(f"--model.encoder={path}", "--model.encoder.size=11", run=False)
    assert made.model.encoder.size == 11


def test_callbacks_and_loggers_by_name() -> None:
    made = cli(
        "--trainer.callbacks=EarlyStopping",
        "--trainer.callbacks.monitor=loss",
        "--trainer.callbacks+=ModelCheckpoint",
        "--trainer.callbacks.save_top_k=-1",
        "--trainer.logger=[{class_path: CSVLogger, init_args: {save_dir: a, version: 0}}]",
        run=False,
    )
    assert made.trainer.early_stopping_callback.monitor == "loss"
    assert made.trainer.checkpoint_callback.save_top_k == -1
    assert made.trainer.log_dir.endswith("version_0")


def test_an_optimizer_and_a_scheduler_from_the_command_line() -> None:
    chosen = ["--optimizer=Adam", "--optimizer.lr=0.5", "--lr_scheduler=StepLR", "--lr_scheduler.step_size=2"]
    with pytest.warns(
        UserWarning, match=r"torch.optim.adam.Adam|torch.optim.Adam.*replaces CommandLineNet.configure_optimizers"
    ):
        made = cli("fit", *SMALL, *chosen)
    assert type(made.trainer.optimizers[0]) is torch.optim.Adam
    assert made.trainer.optimizers[0].param_groups[0]["initial_lr"] == 0.5
    assert made.trainer.lr_scheduler_configs[0].scheduler.step_size == 2


def test_a_plateau_scheduler_names_its_metric() -> None:
    module = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    scheduler = ReduceLROnPlateau(optimizer, monitor="val_loss")
    answer = LightningCLI.configure_optimizers(BoringModel(), optimizer, scheduler)
    assert answer == {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}
    assert LightningCLI.configure_optimizers(BoringModel(), optimizer) is optimizer


def test_an_own_configure_optimizers_of_the_command_line() -> None:
    class ByStep(LightningCLI):
        @staticmethod
        def configure_optimizers(lightning_module: Any, optimizer: Any, lr_scheduler: Any = None) -> Any:
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": lr_scheduler, "interval": "step"}}

    chosen = ["--optimizer=SGD", "--optimizer.lr=1.0", "--lr_scheduler=ExponentialLR", "--lr_scheduler.gamma=0.5"]
    with pytest.warns(UserWarning, match="replaces"):
        made = ByStep(CommandLineNet, args=["fit", *SMALL, *chosen])
    assert made.trainer.optimizers[0].param_groups[0]["lr"] == 0.25


def test_one_optimizer_class_without_choice() -> None:
    class OneClass(LightningCLI):
        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            parser.add_optimizer_args(torch.optim.AdamW)

    with pytest.warns(UserWarning, match="replaces"):
        made = OneClass(CommandLineNet, args=["fit", *SMALL, "--optimizer.lr=0.3"])
    assert made.trainer.optimizers[0].param_groups[0]["lr"] == 0.3


def test_optimizers_linked_to_arguments_of_the_model() -> None:
    class Two(BoringModel):
        def __init__(self, first: dict, second: dict) -> None:
            super().__init__()
            self.made = [instantiate_class(self.parameters(), init) for init in (first, second)]

    class Linked(LightningCLI):
        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            parser.add_optimizer_args((torch.optim.Adam, torch.optim.SGD), "first", link_to="model.first")
            parser.add_optimizer_args(torch.optim.SGD, "second", link_to="model.second")

    made = Linked(Two, args=["--first=Adam", "--first.lr=0.2", "--second.lr=0.4"], run=False)
    assert [type(o).__name__ for o in made.model.made] == ["Adam", "SGD"]
    assert [o.param_groups[0]["lr"] for o in made.model.made] == [0.2, 0.4]


def test_two_optimizers_without_a_link_are_an_error() -> None:
    class Two(LightningCLI):
        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            parser.add_optimizer_args(nested_key="one")
            parser.add_optimizer_args(nested_key="two")

    with pytest.raises(MisconfigurationException, match="without a link: one, two"):
        Two(CommandLineNet, args=[], run=False)


def test_callables_make_optimizer_and_scheduler() -> None:
    class Injected(BoringModel):
        def __init__(
            self,
            optimizer: OptimizerCallable = torch.optim.SGD,
            scheduler: LRSchedulerCallable = torch.optim.lr_scheduler.ConstantLR,
        ) -> None:
            super().__init__()
            self.optimizer, self.scheduler = optimizer, scheduler

        def configure_optimizers(self) -> Any:
            optimizer = self.optimizer(self.parameters())
            return [optimizer], [self.scheduler(optimizer)]

    made = cli("fit", *SMALL, "--model.optimizer=Adam", "--model.optimizer.lr=0.6", model_class=Injected)
    optimizer = made.trainer.optimizers[0]
    assert type(optimizer) is torch.optim.Adam and optimizer.param_groups[0]["initial_lr"] == 0.6


def test_arguments_linked_between_model_and_data() -> None:
    class Linked(LightningCLI):
        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            parser.link_arguments("data.width", "model.width")

    assert Linked(CommandLineNet, CommandLineData, args=["--data.width=13"], run=False).model.width == 13


@pytest.mark.parametrize(("model", "target"), [(CommandLineNet, "model.width"), (None, "model.init_args.width")])
def test_an_argument_linked_from_a_made_object_is_a_hyper_parameter(model: Any, target: str) -> None:
    class Linked(LightningCLI):
        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            parser.link_arguments("data.width", target, apply_on="instantiate")

    chosen = [] if model else ["--model=CommandLineNet"]
    made = Linked(model, CommandLineData, args=["fit", *SMALL, *chosen, "--data.width=13"])
    assert made.model.hparams.width == made.model.width == 13
    checkpoint = made.trainer.checkpoint_callback.best_model_path
    assert CommandLineNet.load_from_checkpoint(checkpoint).width == 13
    again = Linked(model, CommandLineData, args=["test", *SMALL, *chosen, f"--ckpt_path={checkpoint}"])
    assert again.model.width == 5  # what the link says of this run's data


def test_a_configurable_callback_of_ones_own() -> None:
    class WithStopping(LightningCLI):
        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            parser.add_lightning_class_args(EarlyStopping, "stopping")
            parser.set_defaults({"stopping.monitor": "loss", "stopping.patience": 5})

    made = WithStopping(CommandLineNet, args=["--stopping.patience=9"], run=False)
    assert made.trainer.early_stopping_callback.patience == 9
    with pytest.raises(MisconfigurationException, match="not <class 'str'>"):
        LightningArgumentParser().add_lightning_class_args(str, "text")


def test_trainer_defaults_and_callbacks_that_are_always_there() -> None:
    defaults = {"max_epochs": 7, "callbacks": [Timer("00:01:00:00")]}
    made = cli("--trainer.callbacks=ModelCheckpoint", run=False, trainer_defaults=defaults)
    assert made.trainer.max_epochs == 7
    kinds = [type(callback) for callback in made.trainer.callbacks]
    assert Timer in kinds and ModelCheckpoint in kinds and SaveConfigCallback in kinds


def test_a_trainer_class_of_ones_own_and_its_own_sub_command() -> None:
    class Mine(Trainer):
        def measure(self, model: LightningModule, times: int = 2) -> None:
            """Measure it."""
            self.measured = times

    class WithMeasure(LightningCLI):
        @staticmethod
        def subcommands() -> dict[str, set[str]]:
            return {**LightningCLI.subcommands(), "measure": {"model"}}

    made = WithMeasure(CommandLineNet, trainer_class=Mine, args=["measure", "--times=4", "--trainer.logger=false"])
    assert made.trainer.measured == 4


def test_a_trainer_class_without_callbacks_runs_without_them() -> None:
    class Bare(Trainer):
        def __init__(self, *, max_epochs: int = 1) -> None:
            super().__init__(max_epochs=max_epochs, logger=False)

    with pytest.warns(UserWarning, match="Bare has no argument `callbacks`, so it runs without SaveConfigCallback"):
        made = cli("--trainer.max_epochs=3", trainer_class=Bare, run=False)
    assert made.trainer.max_epochs == 3


def test_what_runs_around_the_sub_command_in_which_order() -> None:
    order: list[str] = []

    class Notes(LightningCLI):
        def before_instantiate_classes(self) -> None:
            order.append(f"before classes {self.config.fit.model.width}")

        def after_instantiate_classes(self) -> None:
            order.append(f"after classes {self.model.width}")

        def before_fit(self) -> None:
            order.append(f"before {self.trainer.global_step}")

        def after_fit(self) -> None:
            order.append(f"after {self.trainer.global_step}")

    Notes(CommandLineNet, args=["fit", *SMALL])
    assert order == ["before classes 3", "after classes 3", "before 0", "after 2"]


@pytest.mark.parametrize(
    ("default", "argument", "used"), [(True, [], 0), (5, [], 5), (True, ["--seed_everything=9"], 9)]
)
def test_the_seed_is_set_before_the_classes_are_made(default: Any, argument: list[str], used: int) -> None:
    made = cli(*argument, run=False, seed_everything_default=default)
    torch.manual_seed(used)
    assert made.config.seed_everything == used
    assert torch.equal(made.model.layer.weight, BoringModel().layer.weight)


def test_no_seed_where_none_is_wanted() -> None:
    state = torch.get_rng_state()
    made = cli(run=False, seed_everything_default=False)
    torch.set_rng_state(state)
    assert torch.equal(made.model.layer.weight, BoringModel().layer.weight)


def test_the_configuration_is_saved_and_makes_the_same_run() -> None:
    cli("fit", *SMALL, "--model.width=7")
    path = Path("logs/lightning_logs/version_0/config.yaml")
    saved = yaml.safe_load(path.read_text())
    assert saved["model"]["width"] == 7 and saved["seed_everything"] == 1 and saved["trainer"]["max_epochs"] == 1
    again = cli("fit", f"--config={path}")
    assert again.model.width == 7 and again.trainer.log_dir.endswith("version_1")


def test_the_configuration_of_another_run_is_not_overwritten() -> None:
    cli("fit", *SMALL)
    with pytest.raises(RuntimeError, match=r"version_0.config.yaml exists.*overwrite"):
        cli("fit", *SMALL, "--trainer.logger.version=0")
    cli("fit", *SMALL, "--trainer.logger.version=0", "--model.width=4", save_config_kwargs={"overwrite": True})
    assert "width: 4" in Path("logs/lightning_logs/version_0/config.yaml").read_text()


def test_nothing_is_saved_where_nothing_should_be() -> None:
    cli("fit", *SMALL, save_config_callback=None)
    cli("fit", *SMALL, "--trainer.fast_dev_run=1")
    assert not list(Path().rglob("config.yaml"))


def test_the_configuration_may_go_elsewhere() -> None:
    class ToText(SaveConfigCallback):
        def save_config(self, trainer: Any, pl_module: Any, stage: str) -> None:
            Path("elsewhere.yaml").write_text(self.parser.dump(self.config))

    cli("fit", *SMALL, save_config_callback=ToText, save_config_kwargs={"save_to_log_dir": False})
    assert "width: 3" in Path("elsewhere.yaml").read_text()
    assert not list(Path("logs").rglob("config.yaml"))


def test_hyper_parameters_are_saved_as_configured_and_make_the_model_again() -> None:
    path = f"{Encoder.__module__}.Encoder"
    made = cli("fit", *SMALL, f"--model.encoder={path}", "--model.encoder.size=11")
    assert made.model.hparams.encoder == {"class_path": path, "init_args": {"size": 11}}
    checkpoint = made.trainer.checkpoint_callback.best_model_path
    loaded = CommandLineNet.load_from_checkpoint(checkpoint)
    assert loaded.encoder.size == 11 and loaded.hparams == made.model.hparams
    assert CommandLineNet.load_from_checkpoint(checkpoint, width=8).width == 8


def test_a_model_chosen_by_name_is_loaded_through_its_base() -> None:
    made = cli("fit", *SMALL, "--model=CommandLineNet", "--model.width=2", model_class=None)
    loaded = BoringModel.load_from_checkpoint(made.trainer.checkpoint_callback.best_model_path)
    assert type(loaded) is CommandLineNet and loaded.width == 2


def test_arguments_that_only_kwargs_take_come_back_from_a_checkpoint() -> None:
    chosen = ["--model=TakesMore", "--model.width=2", "--model.dict_kwargs.extra=5"]
    made = cli("fit", *SMALL, *chosen, model_class=None)
    assert made.model.hparams.extra == 5
    checkpoint = made.trainer.checkpoint_callback.best_model_path
    for base in (TakesMore, BoringModel):
        loaded = base.load_from_checkpoint(checkpoint, width=3)
        assert type(loaded) is TakesMore and (loaded.width, loaded.more) == (3, {"extra": 5})
    again = cli("test", *SMALL, "--model=TakesMore", f"--ckpt_path={checkpoint}", model_class=None)
    assert again.model.more == {"extra": 5}


def test_a_checkpoint_path_brings_its_hyper_parameters() -> None:
    made = cli("fit", *SMALL, "--model.width=7")
    checkpoint = made.trainer.checkpoint_callback.best_model_path
    assert cli("test", *SMALL, f"--ckpt_path={checkpoint}").model.width == 7


@pytest.mark.filterwarnings("ignore:The argument 'encoder' is an nn.Module")
def test_without_the_support_hyper_parameters_are_the_arguments() -> None:
    made = cli(f"--model.encoder={Encoder.__module__}.Encoder", run=False, load_from_checkpoint_support=False)
    assert made.model.hparams.encoder is made.model.encoder


def test_print_config_shows_every_trainer_argument(capsys: pytest.CaptureFixture[str]) -> None:
    config = printed(capsys, "fit", "--model.width=5")
    assert config["model"] == {"width": 5, "rate": 0.1, "encoder": None}
    assert set(config["trainer"]) == set(inspect.signature(Trainer.__init__).parameters) - {"self"}
    assert config["ckpt_path"] is None and config["optimizer"] is None


def test_help_shows_the_docstrings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli("fit", "--help")
    text = capsys.readouterr().out
    assert "how wide it is" in text and "optimizer steps at most" in text


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "subcommand"),
        (["dance"], "invalid choice: 'dance'"),
        (["fit", "--model.width=x"], 'Parser key "model.width"'),
        (["fit", "--model.depth=3"], "model.depth"),
        (["fit", "--config=missing.yaml"], "missing.yaml"),
    ],
)
def test_bad_arguments_end_the_program_with_a_reason(args: list[str], says: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli(*args)
    assert exit_.value.code == 2 and says in capsys.readouterr().err


def test_arguments_given_twice_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "fit"])
    with pytest.warns(UserWarning, match="the command line is not read"):
        cli(run=False)


@pytest.mark.slow
@pytest.mark.parametrize("by_name", [True, False])
def test_a_file_with_objects_in_it_is_loaded_where_the_program_names_their_class(by_name: bool) -> None:
    args, options = [f"--model.encoder={Encoder.__module__}.Encoder"], {}
    if by_name:
        args, options = ["--model=CommandLineNet", *args], {"model_class": BoringModel, "subclass_mode_model": True}
    made = cli("fit", *SMALL, *args, **options)
    checkpoint = made.trainer.checkpoint_callback.best_model_path
    loaded = (BoringModel if by_name else CommandLineNet).load_from_checkpoint(checkpoint)
    assert type(loaded) is CommandLineNet and loaded.encoder.size == 3
    again = cli("test", *SMALL, f"--ckpt_path={checkpoint}", *args[:1], **options)
    assert again.model.encoder.size == 3


@pytest.mark.parametrize(
    "hparams",
    [
        {"encoder": {"class_path": "planted.Thing"}},
        {"encoder": "planted.Thing"},
        {"width": {"class_path": "planted.Thing"}},
        {"part": {"class_path": "planted.Thing"}},
        {"part": "{class_path: planted.Thing}"},
        {"part": '{"class_\\u0070ath": "pl\\u0061nted.Thing"}'},
        {"either": "planted.Thing"},
        {"either": "planted.yaml"},
        {"encoder.class_path": "planted.Thing"},
        {"_class_path": "planted.Thing"},
    ],
)
def test_a_checkpoint_path_on_the_command_line_imports_nothing_that_the_file_names(
    hparams: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Net(CommandLineNet):
        def __init__(
            self, width: int = 3, encoder: Encoder | None = None, part: Any = None, either: Encoder | str = ""
        ) -> None:
            super().__init__(width)

    monkeypatch.syspath_prepend(str(Path.cwd()))
    Path("planted.py").write_text("open('ran', 'w').close()\nclass Thing:\n    pass\n")
    Path("planted.yaml").write_text("class_path: planted.Thing\n")
    held = {"_instantiator": "lightning.pytorch.cli.instantiate_module", **hparams}
    torch.save({"state_dict": {}, "hyper_parameters": held}, "a.ckpt")
    with pytest.raises((pickle.UnpicklingError, ValueError), match=r"a\.ckpt"):
        cli("test", *SMALL, "--ckpt_path=a.ckpt", model_class=Net)
    assert not Path("ran").exists() and "planted" not in sys.modules
