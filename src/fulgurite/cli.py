"""A command line and configuration files from the signatures of module, data module and trainer, by jsonargparse."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import pkgutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import MethodType
from typing import Any, TypeVar

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fulgurite import callbacks, loggers, profilers
from fulgurite.__version__ import __version__
from fulgurite.callbacks.callback import Callback
from fulgurite.core.datamodule import LightningDataModule
from fulgurite.core.hparams import AS_CALLED, given_hyperparameters
from fulgurite.core.instantiate import INSTANTIATOR, Maker, class_at
from fulgurite.core.module import LightningModule
from fulgurite.core.saving import read_checkpoint, restored_hparams, trusts_files
from fulgurite.hooks import overrides
from fulgurite.trainer import Trainer
from fulgurite.utilities.exceptions import MisconfigurationException
from fulgurite.utilities.rank_zero import rank_zero_warn
from fulgurite.utilities.seed import seed_everything

try:
    from jsonargparse import ArgumentParser, Namespace, register_unresolvable_import_paths
    from jsonargparse.typing import class_from_function

    ActionConfigFile: Any = importlib.import_module("jsonargparse").ActionConfigFile  # exported in a way mypy misses
except ImportError as error:
    raise ModuleNotFoundError("LightningCLI is made of jsonargparse: pip install 'fulgurite[cli]'") from error

register_unresolvable_import_paths(torch)
for _package in (callbacks, loggers, profilers):  # loaded, so that --trainer.callbacks=EarlyStopping finds its class
    for _info in pkgutil.walk_packages(_package.__path__, f"{_package.__name__}."):
        importlib.import_module(_info.name)


class ReduceLROnPlateau(torch.optim.lr_scheduler.ReduceLROnPlateau):
    """torch's, and the name of the metric it watches."""

    def __init__(self, optimizer: Optimizer, monitor: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(optimizer, *args, **kwargs)
        self.monitor = monitor


ModuleType = TypeVar("ModuleType")
ArgsType = list[str] | dict[str, Any] | Namespace | None
OptimizerCallable = Callable[[Iterable[Any]], Optimizer]
LRSchedulerCallable = Callable[[Optimizer], LRScheduler | ReduceLROnPlateau]
LRSchedulerTypeUnion = LRScheduler | ReduceLROnPlateau
LRSchedulerType = type[LRScheduler] | type[ReduceLROnPlateau]
LRSchedulerTypeTuple = (LRScheduler, ReduceLROnPlateau)


def instantiate_class(args: Any, init: dict[str, Any]) -> Any:
    """An object from `{"class_path": "package.Class", "init_args": {...}}`, given these arguments first."""
    cls = class_at(init["class_path"])
    return cls(*(args if isinstance(args, tuple) else (args,)), **init.get("init_args", {}))


def instantiate_module(class_type: type[ModuleType], config: dict[str, Any]) -> ModuleType:
    """A module or data module from the hyper-parameters that a run of the command line has saved."""
    init = {name: value for name, value in config.items() if name != "_instantiator"}
    return Maker("the configuration").module(class_type, init, {})  # type: ignore[no-any-return]  # an object of class_type


def _chosen_by_name(path: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a class by its name; what only its `**kwargs` take stands apart, as the parser wants it."""
    known = ArgumentParser().add_class_arguments(class_at(path), "of", fail_untyped=False)
    init = {name: value for name, value in arguments.items() if f"of.{name}" in known}
    rest = {name: value for name, value in arguments.items() if name not in init}
    return {"class_path": path, "init_args": init, **({"dict_kwargs": rest} if rest else {})}


class LightningArgumentParser(ArgumentParser):  # type: ignore[misc,unused-ignore]  # Any without the extra
    """jsonargparse's parser, which knows modules, callbacks, optimizers and schedulers."""

    def __init__(
        self,
        *args: Any,
        description: str = "Lightning Trainer command line tool",
        env_prefix: str = "PL",
        default_env: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, description=description, env_prefix=env_prefix, default_env=default_env, **kwargs)
        self.dump_header = [f"fulgurite=={__version__}"]
        self.callback_keys: list[str] = []
        self.linked_objects: list[str] = []  # arguments whose value is known once the object it comes from is made
        # by key: the class, or the tuple of classes to choose from, and what the choice is linked to
        self._optimizers: dict[str, tuple[Any, str]] = {}
        self._lr_schedulers: dict[str, tuple[Any, str]] = {}

    def add_lightning_class_args(
        self,
        lightning_class: Callable[..., Any] | type,
        nested_key: str,
        subclass_mode: bool = False,
        required: bool = True,
    ) -> list[str]:
        """Add the arguments of a trainer, module, data module or callback, or of a function that makes one.

        Args:
            lightning_class: the class or function.
            nested_key: what their names begin with.
            subclass_mode: let any subclass be chosen.
            required: with `subclass_mode`, whether one must be.
        """
        if callable(lightning_class) and not isinstance(lightning_class, type):
            lightning_class = class_from_function(lightning_class)
        known = (Trainer, LightningModule, LightningDataModule, Callback)
        if not isinstance(lightning_class, type) or not issubclass(lightning_class, known):
            raise MisconfigurationException(
                f"add_lightning_class_args takes a Trainer, LightningModule, LightningDataModule or Callback class, or "
                f"a function that returns one, not {lightning_class!r}. Use add_class_arguments for other classes."
            )
        if issubclass(lightning_class, Callback):
            self.callback_keys.append(nested_key)
        if subclass_mode:
            self.add_subclass_arguments(lightning_class, nested_key, fail_untyped=False, required=required)
            return []
        return self.add_class_arguments(  # type: ignore[no-any-return]  # a list of names
            lightning_class,
            nested_key,
            fail_untyped=False,
            instantiate=not issubclass(lightning_class, Trainer),
            sub_configs=True,
        )

    def add_optimizer_args(
        self,
        optimizer_class: type[Optimizer] | tuple[type[Optimizer], ...] = (Optimizer,),
        nested_key: str = "optimizer",
        link_to: str = "AUTOMATIC",
    ) -> None:
        """Add the arguments of an optimizer class, or of any subclass of those in a tuple.

        Args:
            optimizer_class: the class, or a tuple of base classes.
            nested_key: what their names begin with.
            link_to: the module's argument that gets the choice; "AUTOMATIC" makes configure_optimizers of it.
        """
        self._add_choice(optimizer_class, nested_key, {"params"})
        self._optimizers[nested_key] = (optimizer_class, link_to)

    def add_lr_scheduler_args(
        self,
        lr_scheduler_class: LRSchedulerType | tuple[LRSchedulerType, ...] = LRSchedulerTypeTuple,
        nested_key: str = "lr_scheduler",
        link_to: str = "AUTOMATIC",
    ) -> None:
        """Add the arguments of a scheduler class; see `add_optimizer_args`."""
        self._add_choice(lr_scheduler_class, nested_key, {"optimizer"})
        self._lr_schedulers[nested_key] = (lr_scheduler_class, link_to)

    def link_arguments(
        self,
        source: str | tuple[str, ...],
        target: str,
        compute_fn: Callable[..., Any] | None = None,
        apply_on: str = "parse",
    ) -> None:
        super().link_arguments(source, target, compute_fn, apply_on)
        if apply_on == "instantiate":
            self.linked_objects.append(target)

    def _add_choice(self, classes: Any, nested_key: str, skip: set[str]) -> None:
        options: dict[str, Any] = {"instantiate": False, "fail_untyped": False, "skip": skip}
        if isinstance(classes, tuple):
            self.add_subclass_arguments(classes, nested_key, required=False, **options)
        else:
            self.add_class_arguments(classes, nested_key, sub_configs=True, **options)


class SaveConfigCallback(Callback):
    """Writes the whole configuration beside the logs of the run, and refuses to overwrite that of another.

    Args:
        parser: the parser that read it.
        config: the configuration.
        config_filename: the name of the file.
        overwrite: whether to overwrite a file that exists.
        multifile: whether to write parts that came from files of their own to files of their own.
        save_to_log_dir: whether to write to `trainer.log_dir`; `save_config` is called in any case.
    """

    def __init__(
        self,
        parser: LightningArgumentParser,
        config: Namespace,
        config_filename: str = "config.yaml",
        overwrite: bool = False,
        multifile: bool = False,
        save_to_log_dir: bool = True,
    ) -> None:
        self.parser, self.config, self.config_filename = parser, config, config_filename
        self.overwrite, self.multifile, self.save_to_log_dir = overwrite, multifile, save_to_log_dir
        self.already_saved = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.already_saved:
            return
        if self.save_to_log_dir:
            self._write(trainer)
        if trainer.is_global_zero:
            self.save_config(trainer, pl_module, stage)
            self.already_saved = True
        self.already_saved = trainer.strategy.broadcast(self.already_saved)

    def _write(self, trainer: Trainer) -> None:
        path = Path(trainer.log_dir or trainer.default_root_dir) / self.config_filename
        if trainer.strategy.broadcast(path.is_file()) and not self.overwrite:
            raise RuntimeError(
                f"{path} exists: it is the configuration of another run, and this one does not overwrite it. Delete "
                "it, give the logger another version, or pass save_config_kwargs={'overwrite': True} to LightningCLI; "
                "save_config_callback=None saves none."
            )
        if trainer.is_global_zero:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.parser.save(self.config, path, skip_unset=False, overwrite=self.overwrite, multifile=self.multifile)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Override to save the configuration elsewhere too, such as in a logger; called on the first process."""


class LightningCLI:
    """Parses the command line, makes module, data module and trainer, and runs the sub-command.

    Example::

        LightningCLI(MyModule, MyData)     # in train.py; then: python train.py fit --config run.yaml --model.lr=0.1

    Override `add_arguments_to_parser`, `before_fit`, `after_fit` and so on to add to it.

    Args:
        model_class: the module's class, or a function that makes one; None: `--model` names any module.
        datamodule_class: the data module's class, or a function that makes one; None: `--data` names any.
        save_config_callback: writes the configuration of each run; None: nothing does.
        save_config_kwargs: its arguments.
        trainer_class: the trainer's class, or a function that makes one.
        trainer_defaults: defaults of the trainer's arguments; callbacks here are added to those configured.
        seed_everything_default: the seed; True chooses one (0, or $PL_GLOBAL_SEED), False seeds nothing.
        parser_kwargs: arguments of the parsers, by sub-command where so nested.
        parser_class: the class of the parsers.
        subclass_mode_model: let `--model` name any subclass of `model_class`.
        subclass_mode_data: let `--data` name any subclass of `datamodule_class`.
        args: what to parse instead of the command line: a list, dictionary or Namespace.
        run: run a sub-command; False: only make the objects.
        auto_configure_optimizers: add `--optimizer` and `--lr_scheduler`.
        load_from_checkpoint_support: save hyper-parameters as they were configured, so that `load_from_checkpoint`
            can make objects among them again.
    """

    def __init__(
        self,
        model_class: type[LightningModule] | Callable[..., LightningModule] | None = None,
        datamodule_class: type[LightningDataModule] | Callable[..., LightningDataModule] | None = None,
        save_config_callback: type[SaveConfigCallback] | None = SaveConfigCallback,
        save_config_kwargs: dict[str, Any] | None = None,
        trainer_class: type[Trainer] | Callable[..., Trainer] = Trainer,
        trainer_defaults: dict[str, Any] | None = None,
        seed_everything_default: bool | int = True,
        parser_kwargs: dict[str, Any] | dict[str, dict[str, Any]] | None = None,
        parser_class: type[LightningArgumentParser] = LightningArgumentParser,
        subclass_mode_model: bool = False,
        subclass_mode_data: bool = False,
        args: ArgsType = None,
        run: bool = True,
        auto_configure_optimizers: bool = True,
        load_from_checkpoint_support: bool = True,
    ) -> None:
        self.save_config_callback, self.save_config_kwargs = save_config_callback, save_config_kwargs or {}
        self.trainer_class, self.trainer_defaults = trainer_class, trainer_defaults or {}
        self.seed_everything_default, self.parser_class = seed_everything_default, parser_class
        self.auto_configure_optimizers = auto_configure_optimizers
        self.model_class, self.subclass_mode_model = model_class, model_class is None or subclass_mode_model
        self.datamodule_class = datamodule_class
        self.subclass_mode_data = datamodule_class is None or subclass_mode_data
        self._model_base = model_class or LightningModule
        self._datamodule_base = datamodule_class or LightningDataModule

        main_kwargs, subparser_kwargs = self._setup_parser_kwargs(parser_kwargs or {})
        self.setup_parser(run, main_kwargs, subparser_kwargs)
        self.parse_arguments(self.parser, args)
        self.subcommand: str | None = self.config["subcommand"] if run else None
        self._parse_ckpt_path()
        self._set_seed()
        self._hparams_as_configured = load_from_checkpoint_support
        self.before_instantiate_classes()
        self.instantiate_classes()
        self.after_instantiate_classes()
        if self.subcommand is not None:
            self._run_subcommand(self.subcommand)

    # the parser
    def _setup_parser_kwargs(self, kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The arguments of the main parser, and those by sub-command."""
        names = self.subcommands()
        return {k: v for k, v in kwargs.items() if k not in names}, {k: v for k, v in kwargs.items() if k in names}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Make a parser that takes configuration files."""
        parser = self.parser_class(**kwargs)
        parser.add_argument(
            "-c", "--config", action=ActionConfigFile, help="Path to a configuration file in json or yaml format."
        )
        return parser

    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        """Make `self.parser`, with the sub-commands or with the arguments themselves."""
        self.parser = self.init_parser(**main_kwargs)
        self._subcommand_parsers: dict[str, LightningArgumentParser] = {}
        self._subcommand_method_arguments: dict[str, list[str]] = {}
        if add_subcommands:
            self._add_subcommands(self.parser, **subparser_kwargs)
        else:
            self._add_arguments(self.parser)

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add arguments that belong to no class: the seed."""
        parser.add_argument(
            "--seed_everything",
            type=bool | int,
            default=self.seed_everything_default,
            help="Seed everything with this number before the classes are made; true chooses one, false seeds nothing.",
        )

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the arguments of trainer, module and data module."""
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        defaults = {f"trainer.{k}": v for k, v in self.trainer_defaults.items() if k != "callbacks"}
        parser.set_defaults(defaults)
        parser.add_lightning_class_args(self._model_base, "model", subclass_mode=self.subclass_mode_model)
        required = self.datamodule_class is not None
        parser.add_lightning_class_args(self._datamodule_base, "data", self.subclass_mode_data, required)

    def _add_arguments(self, parser: LightningArgumentParser) -> None:
        self.add_default_arguments_to_parser(parser)
        self.add_core_arguments_to_parser(parser)
        self.add_arguments_to_parser(parser)
        if self.auto_configure_optimizers:
            if not parser._optimizers:
                parser.add_optimizer_args()
            if not parser._lr_schedulers:
                parser.add_lr_scheduler_args()
        self.link_optimizers_and_lr_schedulers(parser)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Override to add arguments of your own, or to link some."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The trainer's methods that become sub-commands, each with its arguments that the command line leaves out."""
        evaluation = {"model", "dataloaders", "datamodule"}
        return {
            "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule"},
            "validate": evaluation,
            "test": evaluation,
            "predict": evaluation,
        }

    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:
        commands = parser.add_subcommands()
        trainer_class = self.trainer_class if isinstance(self.trainer_class, type) else Trainer
        for name in self.subcommands():
            if not hasattr(trainer_class, name):
                raise MisconfigurationException(
                    f"subcommands() names {name!r}, and {trainer_class} has no such method."
                )
            method = getattr(trainer_class, name)
            summary = (method.__doc__ or "").strip().split("\n")[0]
            own = {"description": summary, **kwargs.get(name, {})}
            subparser = self._prepare_subcommand_parser(trainer_class, name, **own)
            commands.add_subcommand(name, subparser, help=summary)
            self._subcommand_parsers[name] = subparser

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = self.init_parser(**kwargs)
        self._add_arguments(parser)
        skip: set[int | str] = set(self.subcommands()[subcommand])
        self._subcommand_method_arguments[subcommand] = parser.add_method_arguments(klass, subcommand, skip=skip)
        return parser

    @staticmethod
    def link_optimizers_and_lr_schedulers(parser: LightningArgumentParser) -> None:
        """Hand each optimizer and scheduler that has a `link_to` to that argument of the module."""
        for key, (classes, link_to) in {**parser._optimizers, **parser._lr_schedulers}.items():
            if link_to == "AUTOMATIC":
                continue
            compute_fn = None if isinstance(classes, tuple) else functools.partial(_with_class_path, classes)
            parser.link_arguments(key, link_to, compute_fn=compute_fn)

    # the configuration
    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Set `self.config` from the command line, or from what `args` is instead."""
        if args is not None and len(sys.argv) > 1:
            rank_zero_warn(f"LightningCLI(args=...) was given, so the command line is not read: {sys.argv[1:]}.")
        if isinstance(args, (dict, Namespace)):
            self.config: Namespace = parser.parse_object(args)
        else:
            self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Make the module as it was when the checkpoint was saved, where that run was configured like this one."""
        path = self._get(self.config, "ckpt_path") if self.subcommand is not None else None
        if path is None or not Path(path).expanduser().is_file():
            return
        weights_only = self._get(self.config, "weights_only")
        checkpoint = read_checkpoint(path, map_location="cpu", weights_only=weights_only)
        hparams = restored_hparams(checkpoint.get("hyper_parameters") or {}, checkpoint.get("hparams_classes"))
        if hparams.pop("_instantiator", None) is None:
            return
        if not trusts_files(weights_only):
            Maker(path, only_checks=True).module(self._model_base, hparams, {})
        if "_class_path" in hparams:
            hparams = _chosen_by_name(hparams.pop("_class_path"), hparams)
        self.config = self.parser.parse_object({self.subcommand: {"model": hparams}}, self.config)

    def _dump_config(self) -> None:
        import yaml

        text = self._parser(self.subcommand).dump(self._own(self.config), skip_unset=False, skip_link_targets=False)
        self.config_dump: dict[str, Any] = yaml.safe_load(text)

    def _set_seed(self) -> None:
        seed = self._get(self.config, "seed_everything")
        if seed is False:
            return
        if seed is True:
            seed = int(os.environ.get("PL_GLOBAL_SEED", 0))
        self._own(self.config)["seed_everything"] = seed_everything(seed, workers=True)

    def _own(self, config: Namespace) -> Any:
        """The part of a configuration that belongs to the sub-command."""
        return config if self.subcommand is None else config[self.subcommand]

    def _get(self, config: Namespace, key: str, default: Any = None) -> Any:
        return self._own(config).get(key, default)

    def _parser(self, subcommand: str | None) -> LightningArgumentParser:
        return self.parser if subcommand is None else self._subcommand_parsers[subcommand]

    # the objects
    def _configured(self) -> dict[type, dict[str, Any]]:
        """What was configured for module and data module, by their classes."""
        self._dump_config()
        found: dict[type, dict[str, Any]] = {}
        targets = self._parser(self.subcommand).linked_objects
        for key, base in (("model", self._model_base), ("data", self._datamodule_base)):
            hparams = self.config_dump.get(key)
            if hparams is None:
                continue
            by_name = "class_path" in hparams
            prefix = f"{key}.init_args." if by_name else f"{key}."
            names = [target.removeprefix(prefix) for target in targets if target.startswith(prefix)]
            linked = {name: AS_CALLED for name in names if "." not in name}
            if by_name:
                init = {**hparams.get("init_args", {}), **linked, **hparams.get("dict_kwargs", {})}
                found[class_at(hparams["class_path"])] = {**init, "_class_path": hparams["class_path"]}
            elif isinstance(base, type):
                found[base] = {**hparams, **linked}
        return {cls: {**hparams, "_instantiator": INSTANTIATOR} for cls, hparams in found.items()}

    def before_instantiate_classes(self) -> None:
        """Override to do something before the classes are made."""

    def instantiate_classes(self) -> None:
        """Make module, data module and trainer from the configuration."""
        with given_hyperparameters(self._configured() if self._hparams_as_configured else {}):
            self.config_init: Namespace = self.parser.instantiate(self.config)
        self.datamodule: LightningDataModule | None = self._get(self.config_init, "data")
        self.model: LightningModule = self._get(self.config_init, "model")
        self._add_configure_optimizers_method_to_model(self.subcommand)
        self.trainer = self.instantiate_trainer()

    def after_instantiate_classes(self) -> None:
        """Override to do something once the classes are made."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the trainer; `kwargs` go before its configuration."""
        configured = [self._get(self.config_init, key) for key in self._parser(self.subcommand).callback_keys]
        config = {**self._get(self.config_init, "trainer", {}), **kwargs}
        return self._instantiate_trainer(config, configured)

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        wanted = [_as_list(config.get("callbacks")), callbacks, _as_list(self.trainer_defaults.get("callbacks"))]
        config["callbacks"] = [callback for several in wanted for callback in several]
        if self.save_config_callback is not None and not config.get("fast_dev_run", False):
            saver = self.save_config_callback(
                self._parser(self.subcommand), self._own(self.config), **self.save_config_kwargs
            )
            config["callbacks"].append(saver)
        takes = inspect.signature(self.trainer_class).parameters.values()
        if not any(p.name == "callbacks" or p.kind is p.VAR_KEYWORD for p in takes):
            left_out = ", ".join(type(callback).__name__ for callback in config.pop("callbacks"))
            if left_out:
                rank_zero_warn(
                    f"{self.trainer_class.__qualname__} has no argument `callbacks`, so it runs without {left_out}. "
                    "Give it one, or **kwargs, and hand them on to Trainer."
                )
        return self.trainer_class(**config)

    @staticmethod
    def configure_optimizers(
        lightning_module: LightningModule, optimizer: Optimizer, lr_scheduler: LRSchedulerTypeUnion | None = None
    ) -> Any:
        """What the module's configure_optimizers returns; override to set the scheduler's interval, for example."""
        if lr_scheduler is None:
            return optimizer
        if isinstance(lr_scheduler, ReduceLROnPlateau):
            scheduler = {"scheduler": lr_scheduler, "monitor": lr_scheduler.monitor}
            return {"optimizer": optimizer, "lr_scheduler": scheduler}
        return [optimizer], [lr_scheduler]

    def _add_configure_optimizers_method_to_model(self, subcommand: str | None) -> None:
        """Where `--optimizer` was given, it goes before the module's own configure_optimizers."""
        if not self.auto_configure_optimizers:
            return
        parser = self._parser(subcommand)
        optimizer = self._automatic(parser._optimizers)
        scheduler = self._automatic(parser._lr_schedulers)
        if optimizer is None:
            return
        if overrides(self.model, "configure_optimizers", LightningModule):
            rank_zero_warn(
                f"the configured optimizer {optimizer['class_path']} replaces "
                f"{type(self.model).__name__}.configure_optimizers."
            )

        def configure_optimizers(module: LightningModule) -> Any:
            made = instantiate_class(module.parameters(), optimizer)
            schedule = instantiate_class(made, scheduler) if scheduler is not None else None
            return self.configure_optimizers(module, optimizer=made, lr_scheduler=schedule)

        self.model.configure_optimizers = MethodType(configure_optimizers, self.model)  # type: ignore[method-assign]  # that is the purpose

    def _automatic(self, added: dict[str, tuple[Any, str]]) -> dict[str, Any] | None:
        """What was chosen for the one key that is linked to nothing, as class_path and init_args."""
        keys = [key for key, (_, link_to) in added.items() if link_to == "AUTOMATIC"]
        if len(keys) > 1:
            raise MisconfigurationException(
                f"there are {len(keys)} optimizers (or schedulers) without a link: {', '.join(keys)}. At most one can "
                "make configure_optimizers; give the others link_to='model.argument'."
            )
        chosen = self._get(self.config_init, keys[0]) if keys else None
        if chosen is None:
            return None
        classes = added[keys[0]][0]
        chosen = chosen.as_dict() if isinstance(chosen, Namespace) else chosen
        return chosen if isinstance(classes, tuple) else _with_class_path(classes, chosen)

    # the sub-command
    def _run_subcommand(self, subcommand: str) -> None:
        """`before_fit`, `fit` (the trainer's, unless this class has its own) and `after_fit`, or another's."""
        for name in (f"before_{subcommand}", subcommand, f"after_{subcommand}"):
            if name == subcommand:
                method = getattr(self, subcommand, None) or getattr(self.trainer, subcommand)
                method(**self._prepare_subcommand_kwargs(subcommand))
            elif callable(around := getattr(self, name, None)):
                around()

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        names = self._subcommand_method_arguments[subcommand]
        kwargs = {key: value for key, value in self.config_init[subcommand].items() if key in names}
        kwargs["model"] = self.model
        if self.datamodule is not None:
            kwargs["datamodule"] = self.datamodule
        return kwargs


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def _with_class_path(cls: type, init_args: Any) -> dict[str, Any]:
    init_args = init_args.as_dict() if isinstance(init_args, Namespace) else init_args
    return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": init_args}
