"""Train with some layers frozen, and thaw them later."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn import Parameter
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from fulgurite.callbacks.callback import Callback
from fulgurite.utilities.exceptions import MisconfigurationException
from fulgurite.utilities.rank_zero import rank_zero_info, rank_zero_warn

if TYPE_CHECKING:
    from fulgurite.core.module import LightningModule
    from fulgurite.trainer import Trainer

Modules = nn.Module | Iterable["nn.Module | Iterable[Any]"]
_METADATA = "internal_optimizer_metadata"


def multiplicative(epoch: int) -> float:
    """Double each epoch."""
    return 2.0


class BaseFinetuning(Callback):
    """Override `freeze_before_training` and `finetune_function` to say what is frozen, and when it is thawed.

    Example::

        class HeadFirst(BaseFinetuning):
            def freeze_before_training(self, pl_module):
                self.freeze(pl_module.backbone)

            def finetune_function(self, pl_module, epoch, optimizer):
                if epoch == 10:
                    self.unfreeze_and_add_param_group(pl_module.backbone, optimizer)

    Let the optimizer begin with the parameters that train: `[p for p in self.parameters() if p.requires_grad]`.
    """

    def __init__(self) -> None:
        super().__init__()
        # per optimizer its parameter groups, with names in the place of parameters: what a resumed run builds again
        self._internal_optimizer_metadata: dict[int, list[dict[str, Any]]] = {}
        self._frozen: list[str] | None = None  # parameters, and batch norms that do not measure, as of the last epoch
        self._restarting = False

    def freeze_before_training(self, pl_module: LightningModule) -> None:
        """Freeze what is not to be trained from the start."""
        raise NotImplementedError

    def finetune_function(self, pl_module: LightningModule, epoch: int, optimizer: Optimizer) -> None:
        """At the start of each epoch, for each optimizer: thaw what is due."""
        raise NotImplementedError

    # which modules and parameters
    @staticmethod
    def flatten_modules(modules: Modules) -> list[nn.Module]:
        """All modules inside, down to those that have parameters of their own or no children."""
        if isinstance(modules, nn.ModuleDict):
            modules = modules.values()
        if not isinstance(modules, nn.Module):
            return [module for part in modules for module in BaseFinetuning.flatten_modules(part)]
        return [
            module
            for module in modules.modules()
            if not list(module.children()) or any(True for _ in module.parameters(recurse=False))
        ]

    @staticmethod
    def filter_params(modules: Modules, train_bn: bool = True, requires_grad: bool = True) -> Iterator[Parameter]:
        """The parameters that train (or, with `requires_grad=False`, that do not); batch norm's if `train_bn`."""
        for module in BaseFinetuning.flatten_modules(modules):
            if isinstance(module, _BatchNorm) and not train_bn:
                continue
            for parameter in module.parameters(recurse=False):
                if parameter.requires_grad == requires_grad:
                    yield parameter

    # freezing and thawing
    @staticmethod
    def freeze_module(module: nn.Module) -> None:
        """Freeze the module's own parameters, and batch norm's running statistics."""
        if isinstance(module, _BatchNorm):
            module.track_running_stats = False
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad = False

    @staticmethod
    def freeze(modules: Modules, train_bn: bool = True) -> None:
        """Freeze everything inside; batch norm goes on training if `train_bn`."""
        for module in BaseFinetuning.flatten_modules(modules):
            if isinstance(module, _BatchNorm) and train_bn:
                BaseFinetuning.make_trainable(module)
            else:
                BaseFinetuning.freeze_module(module)

    @staticmethod
    def make_trainable(modules: Modules) -> None:
        """Thaw everything inside."""
        for module in BaseFinetuning.flatten_modules(modules):
            if isinstance(module, _BatchNorm):
                module.track_running_stats = True
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad = True

    @staticmethod
    def filter_on_optimizer(optimizer: Optimizer, params: Iterable[Parameter]) -> list[Parameter]:
        """Those of the parameters that the optimizer does not have yet; the others are told of."""
        has = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        params = list(params)
        new = [parameter for parameter in params if id(parameter) not in has]
        if len(new) < len(params):
            rank_zero_warn(
                f"{len(params) - len(new)} parameters to be thawed are in the optimizer already and stay as they are. "
                "Give it only what trains from the start: [p for p in self.parameters() if p.requires_grad]."
            )
        return new

    @staticmethod
    def unfreeze_and_add_param_group(
        modules: Modules,
        optimizer: Optimizer,
        lr: float | None = None,
        initial_denom_lr: float = 10.0,
        train_bn: bool = True,
    ) -> None:
        """Thaw modules, and train them in a group of their own at `lr`, or at the first group's divided."""
        has = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        training = {id(p) for p in BaseFinetuning.filter_params(modules, requires_grad=True)}
        BaseFinetuning.make_trainable(modules)
        rate = optimizer.param_groups[0]["lr"] if lr is None else lr
        denominator = initial_denom_lr if lr is None else 1.0
        thawed = BaseFinetuning.filter_params(modules, train_bn=train_bn, requires_grad=True)
        params = [p for p in thawed if id(p) not in has & training]  # batch norm may have trained all along
        new = BaseFinetuning.filter_on_optimizer(optimizer, params)
        if new:
            optimizer.add_param_group({"params": new, "lr": rate / denominator})

    # when
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":  # not as used before; a checkpoint is loaded later
            self._internal_optimizer_metadata, self._frozen, self._restarting = {}, None, False
        self.freeze_before_training(pl_module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._restarting:
            return
        named = dict(pl_module.named_parameters())
        for i, optimizer in enumerate(trainer.optimizers):
            optimizer.param_groups = self._apply_mapping_to_param_groups(self._internal_optimizer_metadata[i], named)
        if self._frozen is not None:  # setup has frozen all that is frozen at the start
            for name, parameter in named.items():
                parameter.requires_grad = name not in self._frozen
            for name, norm in _batch_norms(pl_module):
                norm.track_running_stats = name not in self._frozen
        self._restarting = False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for i, optimizer in enumerate(trainer.optimizers):
            before = len(optimizer.param_groups)
            self.finetune_function(pl_module, trainer.current_epoch, optimizer)
            names = {parameter: name for name, parameter in pl_module.named_parameters()}
            known = self._internal_optimizer_metadata.setdefault(i, [])
            first_new = before if known else 0
            known.extend(self._apply_mapping_to_param_groups(optimizer.param_groups[first_new:], names))
        self._frozen = [name for name, parameter in pl_module.named_parameters() if not parameter.requires_grad]
        self._frozen += [name for name, norm in _batch_norms(pl_module) if not norm.track_running_stats]

    def state_dict(self) -> dict[str, Any]:
        return {_METADATA: self._internal_optimizer_metadata, "frozen": self._frozen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._internal_optimizer_metadata = state_dict.get(_METADATA, state_dict)  # the bare dictionary in old files
        self._frozen = state_dict.get("frozen")
        self._restarting = bool(self._internal_optimizer_metadata)

    @staticmethod
    def _apply_mapping_to_param_groups(
        param_groups: list[dict[str, Any]], mapping: dict[Any, Any]
    ) -> list[dict[str, Any]]:
        """The groups with each parameter replaced by what it maps to."""
        return [{**group, "params": [mapping[parameter] for parameter in group["params"]]} for group in param_groups]


def _batch_norms(module: nn.Module) -> list[tuple[str, _BatchNorm]]:
    return [(name, part) for name, part in module.named_modules() if isinstance(part, _BatchNorm)]


class BackboneFinetuning(BaseFinetuning):
    """Train the head alone, then `pl_module.backbone` too, at a rate that grows towards the head's.

    Example::

        Trainer(callbacks=[BackboneFinetuning(unfreeze_backbone_at_epoch=10, lambda_func=lambda epoch: 1.5)])

    The backbone's rate begins at `backbone_initial_ratio_lr` of the head's (or at `backbone_initial_lr`), times
    `lambda_func(epoch + 1)` each epoch; `should_align` lets it follow the head's once it has reached it.
    """

    def __init__(
        self,
        unfreeze_backbone_at_epoch: int = 10,
        lambda_func: Callable[[int], float] = multiplicative,
        backbone_initial_ratio_lr: float = 10e-2,
        backbone_initial_lr: float | None = None,
        should_align: bool = True,
        initial_denom_lr: float = 10.0,
        train_bn: bool = True,
        verbose: bool = False,
        rounding: int = 12,
    ) -> None:
        super().__init__()
        self.unfreeze_backbone_at_epoch = unfreeze_backbone_at_epoch
        self.lambda_func = lambda_func
        self.backbone_initial_ratio_lr = backbone_initial_ratio_lr
        self.backbone_initial_lr = backbone_initial_lr
        self.should_align = should_align
        self.initial_denom_lr = initial_denom_lr
        self.train_bn = train_bn
        self.verbose = verbose
        self.rounding = rounding
        self.previous_backbone_lr: float | None = None

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "previous_backbone_lr": self.previous_backbone_lr}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.previous_backbone_lr = state_dict["previous_backbone_lr"]
        super().load_state_dict(state_dict)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not isinstance(getattr(pl_module, "backbone", None), nn.Module):
            raise MisconfigurationException(
                f"BackboneFinetuning thaws {type(pl_module).__name__}.backbone, and there is no such module. "
                "Name it so, or derive from BaseFinetuning."
            )
        super().on_fit_start(trainer, pl_module)

    def freeze_before_training(self, pl_module: LightningModule) -> None:
        backbone = getattr(pl_module, "backbone", None)
        if isinstance(backbone, nn.Module):  # else on_fit_start says what is missing
            self.freeze(backbone)

    def finetune_function(self, pl_module: LightningModule, epoch: int, optimizer: Optimizer) -> None:
        head_lr = optimizer.param_groups[0]["lr"]
        if epoch == self.unfreeze_backbone_at_epoch:
            given = self.backbone_initial_lr
            lr = head_lr * self.backbone_initial_ratio_lr if given is None else given
            self.previous_backbone_lr = lr
            self.unfreeze_and_add_param_group(
                pl_module.backbone,  # type: ignore[arg-type]  # checked in on_fit_start
                optimizer,
                lr,
                train_bn=self.train_bn,
                initial_denom_lr=self.initial_denom_lr,
            )
        elif epoch > self.unfreeze_backbone_at_epoch and self.previous_backbone_lr is not None:
            lr = self.lambda_func(epoch + 1) * self.previous_backbone_lr
            lr = head_lr if self.should_align and lr > head_lr else lr
            optimizer.param_groups[-1]["lr"] = lr
            self.previous_backbone_lr = lr
        else:
            return
        if self.verbose:
            rank_zero_info(f"Current lr: {round(head_lr, self.rounding)}, Backbone lr: {round(lr, self.rounding)}")
