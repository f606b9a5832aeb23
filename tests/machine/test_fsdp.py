"""FSDP2 on one, two and three real processes: one process's numbers, and checkpoints that any number of them reads."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import (
    BackwardPrefetch,
    CPUOffload,
    FSDPModule,
    MixedPrecision,
    MixedPrecisionPolicy,
    ShardingStrategy,
    fully_shard,
)
from torch.distributed.fsdp.wrap import CustomPolicy, ModuleWrapPolicy, size_based_auto_wrap_policy
from torch.torch_version import TorchVersion
from torch.utils.data import DataLoader

from fulgurite import LightningModule, Trainer
from fulgurite.__main__ import main
from fulgurite.callbacks import ModelCheckpoint
from fulgurite.core.saving import read_checkpoint
from fulgurite.plugins import CheckpointIO
from fulgurite.strategies import FSDPStrategy, ModelParallelStrategy
from fulgurite.utilities.exceptions import MisconfigurationException
from helpers import blocks
from helpers.blocks import Block, Blocks, fitted, furthest, loader, quiet, samples, weights
from helpers.processes import run_ranks

# several cases share a group of processes: starting two costs about 4 s of processor time
_USE = """
from pathlib import Path
from helpers import blocks
from helpers.blocks import *
from fulgurite.strategies import FSDPStrategy, ModelParallelStrategy
from fulgurite.callbacks import *
answers = {}
"""


# one process: what needs no other
@pytest.fixture
def alone() -> Iterator[None]:
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


def units(module: nn.Module) -> set[str]:
    return {name for name, part in module.named_modules() if isinstance(part, FSDPModule)}


POLICIES = {
    "nothing": (None, {""}),
    "classes": ({Block}, {"", "blocks.0", "blocks.1"}),
    "ModuleWrapPolicy": (ModuleWrapPolicy({Block, nn.Tanh}), {"", "blocks.0", "blocks.1"}),
    "CustomPolicy": (CustomPolicy(lambda part: isinstance(part, Block)), {"", "blocks.0", "blocks.1"}),
    "by size": (functools.partial(size_based_auto_wrap_policy, min_num_params=60), {"", "blocks.0", "blocks.1"}),
    "a function": (lambda module, recurse, nonwrapped_numel: recurse or nonwrapped_numel == 25, {"", "first"}),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.usefixtures("alone")
def test_a_policy_says_which_modules_are_units(policy: str) -> None:
    given, expected = POLICIES[policy]
    assert units(fitted(6, strategy=FSDPStrategy(auto_wrap_policy=given), max_steps=1)) == expected


@pytest.mark.usefixtures("alone")
def test_one_process_alone_gets_the_weights_it_gets_without_sharding() -> None:
    strategy = FSDPStrategy(auto_wrap_policy={Block}, activation_checkpointing={Block})
    assert (
        furthest(
            weights(fitted(6, strategy=strategy, gradient_clip_val=0.1)), weights(fitted(6, gradient_clip_val=0.1))
        )
        == 0
    )


REFUSED = [
    ({"sharding_strategy": "NO_SHARD"}, "is what strategy='ddp' does"),
    ({"sharding_strategy": ShardingStrategy.NO_SHARD}, "is what strategy='ddp' does"),
    ({"sharding_strategy": "HALF"}, "'HALF' is not one of FULL_SHARD"),
    ({"state_dict_type": "local"}, "state_dict_type='local' is not one of 'full' and 'sharded'"),
    ({"device_mesh": (2, 2)}, "only HYBRID_SHARD has replicas"),
    ({"use_orig_params": False}, "use_orig_params=False.*has no counterpart in FSDP2.*leave it out"),
    ({"backward_prefetch": BackwardPrefetch.BACKWARD_POST}, "call set_modules_to_backward_prefetch"),
    ({"forward_prefetch": True}, "call set_modules_to_forward_prefetch"),
    ({"param_init_fn": print}, "create the layers under torch.device"),
    ({"ignored_modules": [nn.Linear(1, 1)]}, "ignored_params"),
    ({"activation_checkpointing": {Block}, "activation_checkpointing_policy": {Block}}, "the same thing twice"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), REFUSED, ids=[next(iter(a)) + str(i) for i, (a, _) in enumerate(REFUSED)]
)
def test_what_fsdp2_has_no_counterpart_for_says_what_to_write(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(MisconfigurationException, match=message):
        FSDPStrategy(**arguments)


def test_an_unknown_argument_is_named() -> None:
    with pytest.raises(TypeError, match="no argument 'auto_wrap_polcy'"):
        FSDPStrategy(auto_wrap_polcy={Block})


def test_arguments_of_fsdp1_that_say_what_fsdp2_does_are_taken() -> None:
    FSDPStrategy(
        use_orig_params=True,
        sync_module_states=True,
        limit_all_gathers=True,
        backward_prefetch=BackwardPrefetch.BACKWARD_PRE,
        sharding_strategy=ShardingStrategy.SHARD_GRAD_OP,
        cpu_offload=CPUOffload(offload_params=False),
        process_group=None,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cpu_offload": True}, "cpu_offload with the device cpu: there is nothing to offload from"),
        ({"auto_wrap_policy": "blocks"}, "auto_wrap_policy='blocks' is neither a set of module classes nor"),
        ({"mixed_precision": "bf16"}, "mixed_precision='bf16' is no MixedPrecisionPolicy"),
        (
            {"mixed_precision": MixedPrecision(keep_low_precision_grads=True)},
            "keep_low_precision_grads",
        ),
        ({"sharding_strategy": "HYBRID_SHARD", "device_mesh": (2, 2)}, r"device_mesh=\(2, 2\) makes 4 processes"),
    ],
    ids=["offload", "policy", "precision", "gradients", "mesh"],
)
@pytest.mark.usefixtures("alone")
def test_what_does_not_fit_is_told_before_training(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(MisconfigurationException, match=message):
        fitted(6, strategy=FSDPStrategy(**arguments))


class Looking(Blocks):
    """Notes the types that its steps and its layers see."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.types: dict[str, torch.dtype] = {}

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        inside = self.first(batch)
        loss = super().training_step(batch, batch_idx)
        self.types.update(batch=batch.dtype, weight=self.first.weight.dtype, layer=inside.dtype, loss=loss.dtype)
        return loss

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        weight = self.first.weight
        self.types.update(shard=weight.dtype, gradient=weight.grad.dtype, buffer=self.seen.dtype)


_HALF, _SINGLE = torch.bfloat16, torch.float32
_STEP = ("batch", "weight", "layer", "loss")
PRECISIONS = {
    "bf16-mixed": ("bf16-mixed", None, {"layer": _HALF, "weight": _HALF}),
    "bf16-true": ("bf16-true", None, dict.fromkeys((*_STEP, "shard", "gradient", "buffer"), _HALF)),
    "32-true": ("32-true", None, {}),
    "a policy": (
        "32-true",
        MixedPrecisionPolicy(param_dtype=_HALF),
        {"batch": _HALF, "weight": _HALF, "layer": _HALF, "loss": _HALF},
    ),
    "FSDP1's": (
        "32-true",
        MixedPrecision(param_dtype=_HALF, reduce_dtype=_HALF, buffer_dtype=_HALF),
        {"batch": _HALF, "weight": _HALF, "layer": _HALF, "loss": _HALF, "buffer": _HALF},
    ),
}


@pytest.mark.parametrize("name", PRECISIONS)
@pytest.mark.usefixtures("alone")
def test_precision_says_in_which_type_each_thing_is(name: str) -> None:
    precision, policy, halves = PRECISIONS[name]
    model = Looking()
    trainer = quiet(strategy=FSDPStrategy(mixed_precision=policy), precision=precision, max_steps=2)
    both = [DataLoader(samples().float(), 6) for _ in range(2)]  # type: ignore[arg-type]  # a tensor is a data set
    trainer.fit(model, *both)
    everything = dict.fromkeys((*_STEP, "shard", "gradient", "buffer"), _SINGLE)
    assert model.types == {**everything, **halves}


class OnMeta(LightningModule):
    """Made without memory, given values when it is sharded."""

    def __init__(self) -> None:
        super().__init__()
        self.net: nn.Module = nn.Identity()

    def configure_model(self) -> None:
        if isinstance(self.net, nn.Identity):
            with torch.device("meta"):
                self.net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 1))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.net(batch).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


@pytest.mark.usefixtures("alone")
def test_layers_of_the_meta_device_are_made_as_they_would_have_been() -> None:
    model = OnMeta()
    torch.manual_seed(4)
    for _ in range(2):
        quiet(strategy="fsdp", precision="32-true", max_steps=0).fit(model, loader(6))
    torch.manual_seed(4)
    reference = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 1))
    sharded = {name.removeprefix("net."): value for name, value in weights(model).items()}
    assert furthest(sharded, weights(reference)) == 0


class ShardsOnMeta(OnMeta):
    """Its own `configure_model` shards what has no memory yet: one layer, or all."""

    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.whole = whole

    def configure_model(self) -> None:
        super().configure_model()
        fully_shard(self.net[0], mesh=self.device_mesh)  # type: ignore[index]  # a Sequential by now
        if self.whole:
            fully_shard(self, mesh=self.device_mesh)


@pytest.mark.usefixtures("alone")
@pytest.mark.filterwarnings("ignore:DTensor random operators may not have complete support on cpu")
@pytest.mark.parametrize("whole", [False, True])
def test_layers_that_configure_model_shards_on_the_meta_device_are_made_too(whole: bool) -> None:
    model = ShardsOnMeta(whole)
    torch.manual_seed(4)
    quiet(strategy="fsdp", precision="32-true", max_steps=0).fit(model, loader(6))
    torch.manual_seed(4)
    reference = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 1))
    sharded = {name.removeprefix("net."): value for name, value in weights(model).items()}
    assert furthest(sharded, weights(reference)) == 0


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))


class BareOnMeta(OnMeta):
    def configure_model(self) -> None:
        with torch.device("meta"):
            self.net = Bare()


@pytest.mark.usefixtures("alone")
def test_a_layer_of_the_meta_device_that_cannot_be_made_is_named() -> None:
    with pytest.raises(MisconfigurationException, match=r"a Bare was created on the meta device, and has no reset_par"):
        quiet(strategy="fsdp").fit(BareOnMeta(), loader(6))


@pytest.mark.usefixtures("alone")
def test_a_sharded_module_goes_on_with_the_next_trainer() -> None:
    model, twin = Blocks(), Blocks()
    twin.load_state_dict(model.state_dict())
    for strategy, module in (("fsdp", model), ("auto", twin)):
        quiet(strategy=strategy, max_epochs=1).fit(module, loader(6), loader(6))
        trainer = quiet(strategy=strategy, max_epochs=1)
        trainer.fit(module, loader(6), loader(6, 10))
        trainer.test(dataloaders=loader(6, 10), ckpt_path=None, model=module, verbose=False)
        assert "training_step" not in vars(module)
    assert furthest(weights(model), weights(twin)) == 0


@pytest.mark.usefixtures("alone")
def test_another_checkpoint_plugin_and_shards_contradict_each_other() -> None:
    class Mine(CheckpointIO):
        pass

    strategy = FSDPStrategy(state_dict_type="sharded", checkpoint_io=Mine())
    trainer = quiet(strategy=strategy, max_steps=1)
    trainer.fit(Blocks(), loader(6), loader(6))
    with pytest.raises(MisconfigurationException, match="the plugin Mine with sharded checkpoints"):
        trainer.save_checkpoint("mine.ckpt")


@pytest.mark.usefixtures("alone")
def test_model_parallel_strategy_needs_a_model_that_configure_model_has_sharded() -> None:
    with pytest.raises(TypeError, match="Blocks.configure_model has sharded nothing"):
        quiet(strategy=ModelParallelStrategy()).fit(Blocks(), loader(6), loader(6))
    with pytest.raises(MisconfigurationException, match="data_parallel_size=2 times tensor_parallel_size=1 is 2, and"):
        quiet(strategy=ModelParallelStrategy(2, 1)).fit(Blocks(), loader(6), loader(6))


class SavingInWindow(Blocks):
    def on_train_batch_end(self, *args: Any) -> None:
        if self.trainer.progress.total_batch == 1:
            self.trainer.save_checkpoint("window.ckpt")


@pytest.mark.usefixtures("alone")
def test_gradients_that_are_not_in_the_checkpoint_are_told() -> None:
    for unsharded in (False, True):
        strategy = FSDPStrategy(accumulates_unsharded=unsharded)
        trainer = quiet(strategy=strategy, accumulate_grad_batches=2, max_steps=1)
        with pytest.warns(UserWarning, match="gradients are not in it") if unsharded else nullcontext():
            trainer.fit(SavingInWindow(), loader(6), loader(6))
        assert bool(read_checkpoint("window.ckpt")["fulgurite"]["gradients"]) is not unsharded


@pytest.mark.usefixtures("alone")
def test_a_torch_that_cannot_shard_on_the_cpu_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.6.0"))
    with pytest.raises(MisconfigurationException, match=r"torch 2.6.0 shards on GPUs only; .* Use strategy='ddp'"):
        fitted(6, strategy="fsdp")


def test_old_and_new_names_of_the_strategies() -> None:
    assert isinstance(Trainer(accelerator="cpu", strategy="fsdp", logger=False).strategy, FSDPStrategy)
    assert Trainer(accelerator="cpu", strategy="fsdp_cpu_offload", logger=False).strategy._offloads  # type: ignore[attr-defined]  # an FSDPStrategy
    with pytest.raises(ValueError, match="'fsdpp' is not one of .*'fsdp', 'fsdp_cpu_offload'"):
        Trainer(accelerator="cpu", strategy="fsdpp", logger=False)


# several
FLAGS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "two units, clipped by norm, accumulating": {"gradient_clip_val": 0.05, "accumulate_grad_batches": 2},
    "gradients kept whole in a window": {"gradient_clip_val": 0.05, "accumulate_grad_batches": 3},
    "a replica on each process": {"gradient_clip_val": 0.05},
    "clipped by value": {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value", "model": {"name": "SGD"}},
}
STRATEGIES = {
    "as it is": "'fsdp'",
    "two units, clipped by norm, accumulating": "FSDPStrategy(auto_wrap_policy={Block})",
    "gradients kept whole in a window": "FSDPStrategy(auto_wrap_policy={Block}, accumulates_unsharded=True)",
    "a replica on each process": "FSDPStrategy(sharding_strategy='HYBRID_SHARD', device_mesh=(WORLD_SIZE, 1))",
    "clipped by value": "FSDPStrategy(auto_wrap_policy={Block}, sharding_strategy='SHARD_GRAD_OP')",
}


@pytest.mark.multi
@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.nightly)])
def test_weights_are_those_of_one_process(ranks: int, tmp_path: Path) -> None:
    cases = "".join(
        f"answers[{name!r}] = weights(fitted(6, strategy={STRATEGIES[name]}, **{flags}))\n"
        for name, flags in FLAGS.items()
    )
    answers = run_ranks(f"{_USE}{cases}answer(answers)", ranks, tmp_path)
    alone = {name: weights(fitted(6, **flags)) for name, flags in FLAGS.items()}
    far = {name: furthest(alone[name], answers[0][name]) for name in FLAGS}
    assert max(far.values()) < 1e-12, far
    assert furthest(alone["as it is"], alone["clipped by value"]) > 1e-3


ELSEWHERE = "[Tt]he checkpoint (directory was|holds the state of callbacks)"
_SAVE = f"""{_USE}
warnings.filterwarnings("ignore", message="{ELSEWHERE}")
def saving(kind, folder, ckpt_path=None, **flags):
    strategy = FSDPStrategy(auto_wrap_policy={{Block}}, state_dict_type=kind)
    save = ModelCheckpoint(folder, "{{step}}", every_n_train_steps=1, save_top_k=-1)
    return weights(fitted(6, strategy=strategy, callbacks=[save], ckpt_path=ckpt_path, **flags))
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """What two processes have saved at each step, as files and as folders, and how they went on from there."""
    folder = tmp_path_factory.mktemp("saved")
    script = f"""{_SAVE}
for kind in ("full", "sharded"):
    answers[kind] = saving(kind, kind)
    answers[f"{{kind}} from the third step"] = saving(kind, f"again-{{kind}}", f"{{kind}}/step=3.ckpt")
    answers[f"{{kind}} from the middle of a window"] = saving(
        kind, f"window-{{kind}}", accumulate_grad_batches=2, gradient_clip_val=0.05)
trainer = quiet(strategy="fsdp")
answers["validate"] = trainer.validate(Blocks(), loader(6, 12), ckpt_path="sharded/step=3.ckpt")
answers["test"] = trainer.test(ckpt_path="full/step=3.ckpt", dataloaders=loader(6, 12))
answer(answers)
"""
    return folder, run_ranks(script, 2, folder)[0]


@pytest.mark.multi
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "sharded"])
def test_a_run_resumed_in_mid_epoch_is_bit_equal(saved: tuple[Path, dict[str, Any]], kind: str) -> None:
    folder, answers = saved
    assert furthest(answers[kind], answers[f"{kind} from the third step"]) == 0
    assert furthest(answers["full"], answers["sharded"]) == 0
    assert (folder / kind / "step=3.ckpt").is_dir() == (kind == "sharded")


@pytest.mark.multi
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "sharded"])
def test_one_process_goes_on_from_what_two_have_saved(saved: tuple[Path, dict[str, Any]], kind: str) -> None:
    folder, answers = saved
    path = folder / kind / "step=3.ckpt"
    with pytest.warns(UserWarning, match=ELSEWHERE):
        resumed = weights(fitted(6, ckpt_path=path))
    assert furthest(resumed, answers[kind]) < 1e-12
    loaded = {name: value.float() for name, value in read_checkpoint(path)["state_dict"].items()}
    assert furthest(weights(Blocks.load_from_checkpoint(path)), loaded) == 0


@pytest.mark.multi
@pytest.mark.slow
def test_a_folder_of_shards_becomes_one_file(saved: tuple[Path, dict[str, Any]], capsys: Any) -> None:
    folder = saved[0] / "sharded" / "step=3.ckpt"
    main(["consolidate", str(folder), "whole.ckpt"])
    assert "as one process would have saved it" in capsys.readouterr().out
    ours, theirs = read_checkpoint("whole.ckpt"), read_checkpoint(saved[0] / "full" / "step=3.ckpt")
    assert furthest(ours["state_dict"], theirs["state_dict"]) == 0
    assert str(ours["optimizer_states"]) == str(theirs["optimizer_states"])
    assert ours.keys() == theirs.keys()
    main(["consolidate", str(folder)])
    assert (folder.parent / "step=3.ckpt.consolidated").is_file()


@pytest.mark.multi
@pytest.mark.nightly
def test_three_processes_go_on_from_what_two_or_one_have_saved(
    saved: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, answers = saved
    one = Path("one")
    fitted(6, callbacks=[ModelCheckpoint(one, "{step}", every_n_train_steps=1, save_top_k=-1)])
    paths = {"full": folder / "full", "sharded": folder / "sharded", "one": one.absolute()}
    script = "".join(
        f"answers[{name!r}] = weights(fitted(6, strategy='fsdp', ckpt_path={str(path / 'step=3.ckpt')!r}))\n"
        for name, path in paths.items()
    )
    script += 'trainer = quiet(strategy="fsdp")\ntrainer.validate(Blocks(), loader(6), verbose=False)\n'
    script += 'trainer.save_checkpoint("weights.ckpt", weights_only=True)\nanswer(answers)'
    three = run_ranks(_SAVE + script, 3, tmp_path)[0]
    far = {name: furthest(answers["full"], three[name]) for name in paths}
    assert max(far.values()) < 1e-12, far
    assert "optimizer_states" not in read_checkpoint(tmp_path / "weights.ckpt")


_LIFE = f"""{_USE}
class Falling(Blocks):
    def on_validation_epoch_end(self):
        self.log("score", torch.tensor([5.0, 3.0, 4.0, 2.0, 6.0, 7.0, 8.0][self.trainer.current_epoch]))

def life(kind, **flags):
    torch.manual_seed(3)
    best = ModelCheckpoint(kind, "best-{{epoch}}", monitor="score", save_top_k=2, save_last=True)
    stop = EarlyStopping("score", patience=2)
    strategy = FSDPStrategy(auto_wrap_policy={{Block}}, state_dict_type=kind)
    trainer = quiet(strategy=strategy, callbacks=[best, stop], max_epochs=9, **flags)
    model = Falling()
    trainer.fit(model, loader(6), loader(6, 12))
    end = weights(model)
    trainer.test(ckpt_path="best", dataloaders=loader(6, 12), verbose=False)
    return {{
        "files": sorted(os.listdir(kind)), "folders": {{Path(p).is_dir() for p in Path(kind).iterdir()}},
        "best": best.best_model_path, "epochs": trainer.current_epoch, "end": end, "tested": weights(model),
        "predictions": len(trainer.predict(model, loader(6, 12))),
    }}
"""


@pytest.mark.multi
@pytest.mark.slow
def test_callbacks_keep_the_best_and_the_last_and_stop_early(tmp_path: Path) -> None:
    from_async = 'life("sharded", plugins=[pl.plugins.AsyncCheckpointIO()])'
    script = f'{_LIFE}answer([life("full"), {from_async}])'
    full, shards = run_ranks(script, 2, tmp_path)[0]
    for lived in (full, shards):
        assert lived["files"] == ["best-epoch=1.ckpt", "best-epoch=3.ckpt", "last.ckpt"]
        assert lived["best"].endswith("best-epoch=3.ckpt")
        assert lived["epochs"] == 6
        assert furthest(lived["end"], lived["tested"]) > 1e-3
        assert furthest(lived["tested"], read_checkpoint(lived["best"])["state_dict"]) == 0
    assert (full["folders"], shards["folders"]) == ({False}, {True})
    assert furthest(full["end"], shards["end"]) == 0


@pytest.mark.multi
@pytest.mark.slow
def test_a_process_that_cannot_write_its_shards_fails_the_save_on_all(tmp_path: Path) -> None:
    script = f"""{_SAVE}
model = saving("sharded", "saved", max_steps=2)
import torch.distributed.checkpoint.filesystem as files
def full(*args, **kwargs):
    raise OSError(28, "No space left on device")
if RANK == 1:
    files.FileSystemWriter.write_data = full
for name in ("step=1.ckpt", "step=9.ckpt"):
    try:
        strategy = FSDPStrategy(state_dict_type="sharded")
        trainer = quiet(strategy=strategy, max_steps=0)
        trainer.fit(Blocks(), loader(6), loader(6))
        trainer.save_checkpoint(f"saved/{{name}}")
    except OSError as error:
        answers[name] = str(error)
answer(answers)
"""
    for said in run_ranks(script, 2, tmp_path):
        assert all("could not be written: No space left on device" in message for message in said.values())
        assert said.keys() == {"step=1.ckpt", "step=9.ckpt"}
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == ["step=1.ckpt", "step=2.ckpt"]
    assert read_checkpoint(tmp_path / "saved" / "step=1.ckpt")["global_step"] == 1


_PARALLEL = f"""{_USE}
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")  # of a parallel layer's output

class Own(Blocks):
    def configure_model(self):
        if any(hasattr(p, "placements") for p in self.parameters()):
            return
        mesh = self.device_mesh
        if mesh["tensor_parallel"].size() > 1:
            for block in self.blocks:
                parallelize_module(block, mesh["tensor_parallel"], {{"0": ColwiseParallel(), "2": RowwiseParallel()}})
        if mesh["data_parallel"].size() > 1:
            for block in self.blocks:
                fully_shard(block, mesh=mesh["data_parallel"])
            fully_shard(self, mesh=mesh["data_parallel"])

def parallel(sizes, folder=None, shards=True, **flags):
    torch.manual_seed(3)
    model = Own(hidden=8)
    strategy = ModelParallelStrategy(*sizes, save_distributed_checkpoint=shards)
    if folder:
        flags["callbacks"] = [ModelCheckpoint(folder, "{{step}}", every_n_train_steps=1, save_top_k=-1)]
    quiet(strategy=strategy, **flags).fit(model, loader(6, among=sizes[0]), loader(6, 12, among=sizes[0]))
    return weights(model)
"""
SIZES = {"sharded only": ((2, 1), 2), "parallel layers only": ((1, 2), 2), "both": ((2, 2), 4)}


@pytest.mark.multi
@pytest.mark.slow
@pytest.mark.parametrize("sizes", SIZES)
def test_what_configure_model_has_sharded_trains_as_one_process(sizes: str, tmp_path: Path) -> None:
    given, ranks = SIZES[sizes]
    flags: dict[str, Any] = {"gradient_clip_val": 0.05, "accumulate_grad_batches": 2}
    script = f"""{_PARALLEL}
answers["plain"] = parallel({given}, "plain")
answers["clipped"] = parallel({given}, "clipped", shards=False, **{flags})
answer(answers)
"""
    answers = run_ranks(script, ranks, tmp_path)[0]
    for name, own in (("plain", {}), ("clipped", flags)):
        alone = weights(fitted(6, model={"hidden": 8}, **own))
        assert furthest(alone, answers[name]) < 1e-12
        paths = sorted((tmp_path / name).iterdir())
        assert [path.is_dir() for path in paths] == [name == "plain"] * len(paths)
        with pytest.warns(UserWarning, match=ELSEWHERE):
            resumed = weights(fitted(6, ckpt_path=paths[0], model={"hidden": 8}, **own))
        assert furthest(alone, resumed) < 1e-12


@pytest.mark.multi
@pytest.mark.slow
def test_a_parameter_left_whole_is_named(tmp_path: Path) -> None:
    script = f"""{_PARALLEL}
class Forgetting(Own):
    def configure_model(self):
        for block in self.blocks:
            fully_shard(block, mesh=self.device_mesh["data_parallel"])
try:
    quiet(strategy=ModelParallelStrategy(2, 1)).fit(Forgetting(), loader(6), loader(6))
except ValueError as error:
    answer(str(error))
"""
    for said in run_ranks(script, 2, tmp_path):
        assert "each process would train its own: scale, first.weight, first.bias, last.weight" in said


@pytest.mark.multi
@pytest.mark.slow
def test_evaluation_of_a_checkpoint_is_that_of_one_process(saved: tuple[Path, dict[str, Any]]) -> None:
    folder, answers = saved
    for act, path in (("validate", "sharded/step=3.ckpt"), ("test", "full/step=3.ckpt")):
        (alone,) = getattr(quiet(), act)(Blocks(), loader(6, 12), ckpt_path=folder / path, verbose=False)
        (ours,) = answers[act]
        assert ours.keys() == alone.keys()
        assert all(abs(ours[name] - alone[name]) < 1e-12 for name in alone)


@pytest.mark.multi
@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.nightly)])
def test_sizes_that_do_not_divide_give_the_numbers_of_one_process(ranks: int, tmp_path: Path) -> None:
    look = """
def look(**flags):
    found = {}
    for count in (24, 23, 19, 1):
        torch.manual_seed(3)
        model, trainer = Blocks(), quiet(**flags)
        trainer.fit(model, loader(6, count, shuffle=True), loader(6, 10))
        metrics = {k: float(trainer.callback_metrics[k]) for k in ("loss_epoch", "val_loss")}
        for left in (7, 1):
            trainer.test(model, loader(6, left), verbose=False)
            metrics[f"test {left}"] = float(trainer.callback_metrics["test_loss"])
        found[count] = metrics, weights(model)
    return found
"""
    script = f"{_USE}{look}answer(look(strategy=FSDPStrategy(auto_wrap_policy={{Block}})))"
    space: dict[str, Any] = {**vars(blocks), "torch": torch}
    exec(look, space)
    alone = space["look"]()
    for answers in run_ranks(script, ranks, tmp_path):
        for count, (metrics, end) in alone.items():
            assert furthest(end, answers[count][1]) < 1e-12
            assert {k: v for k, v in metrics.items() if abs(v - answers[count][0][k]) >= 1e-12} == {}


# on GPUs
@pytest.mark.gpu
@pytest.mark.parametrize("strategy", ["fsdp", "fsdp_cpu_offload"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed", "bf16-true"])
@pytest.mark.usefixtures("alone")
def test_a_gpu_trains_what_it_trains_without_sharding(strategy: str, precision: str) -> None:
    def trained(strategy: str) -> tuple[LightningModule, dict[str, Tensor]]:
        torch.manual_seed(3)
        model = Blocks(lr=0.01)
        data = DataLoader(samples().float(), 6)  # type: ignore[arg-type]  # a tensor is a data set
        trainer = quiet(accelerator="gpu", devices=1, strategy=strategy, precision=precision, gradient_clip_val=0.5)
        trainer.fit(model, data, data)
        return model, {name: value.cpu().float() for name, value in weights(model).items()}

    model, sharded = trained(strategy)
    assert model.device.type == "cuda"
    places = {p.to_local().device.type for p in model.parameters()}  # type: ignore[operator]  # sharded ones have it
    assert places == {"cpu" if strategy == "fsdp_cpu_offload" else "cuda"}
    _, plain = trained("auto")
    assert furthest(sharded, plain) < (1e-5 if precision == "32-true" else 2e-2)


@pytest.mark.gpu
@pytest.mark.multi
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="two GPUs are needed")
def test_two_gpus_give_the_weights_of_one_and_save_shards(tmp_path: Path) -> None:
    script = f"""{_SAVE}
flags = dict(accelerator="gpu", devices=2)
for kind in ("full", "sharded"):
    answers[kind] = saving(kind, kind, **flags)
    answers[f"{{kind}} again"] = saving(kind, f"again-{{kind}}", f"{{kind}}/step=3.ckpt", **flags)
answer({{name: {{k: v.cpu() for k, v in end.items()}} for name, end in answers.items()}})
"""
    answers = run_ranks(script, 2, tmp_path)[0]
    alone = {name: value.cpu() for name, value in weights(fitted(6, accelerator="gpu", devices=1)).items()}
    for end in answers.values():
        assert furthest(end, alone) < 1e-12
