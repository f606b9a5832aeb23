"""The nets of sequences by name: what a checkpoint and the command line call them."""

from __future__ import annotations

from torch import nn

from dkt.models.akt import AKTNet
from dkt.models.dkt import DKTNet
from dkt.models.dktplus import DKTPlusNet
from dkt.models.dkvmn import DKVMNNet
from dkt.models.lastquery import LastQueryNet
from dkt.models.mirt import MIRTNet
from dkt.models.saint import SAINTNet
from dkt.models.sakt import SAKTNet
from dkt.models.simplekt import SimpleKTNet

NETS: dict[str, type[nn.Module]] = {
    "dkt": DKTNet,
    "dkt+": DKTPlusNet,
    "dkvmn": DKVMNNet,
    "sakt": SAKTNet,
    "saint+": SAINTNet,
    "akt": AKTNet,
    "simplekt": SimpleKTNet,
    "lastquery": LastQueryNet,
    "mirt": MIRTNet,
}
