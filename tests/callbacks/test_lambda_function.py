from __future__ import annotations

import inspect

from fulgurite import Callback
from fulgurite.callbacks import LambdaCallback
from helpers.tiny import fit


def test_functions_run_at_their_hooks_with_the_hooks_arguments():
    seen = []
    fit(
        LambdaCallback(
            setup=lambda trainer, module, stage: seen.append(stage),
            on_train_batch_end=lambda trainer, module, outputs, batch, batch_idx: seen.append(batch_idx),
        ),
        max_epochs=1,
    )
    assert seen == ["fit", 0, 1, 2, 3]


def test_every_hook_of_a_callback_can_be_given():
    hooks = {name for name, value in vars(Callback).items() if inspect.isfunction(value) and not name.startswith("_")}
    given = set(inspect.signature(LambdaCallback).parameters)
    assert hooks - given == {"state_dict", "load_state_dict"}
    assert given <= hooks
