"""Linear with deltas: the one brick that low-rank methods plug into."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cypher.layers.frozen_linear import FrozenLinear, freezes
from cypher.layers.kernels import PackedLinear, pack_linear
from cypher.layers.passages import DeltaPassage, EnterPassage
from cypher.layers.route import go_through

if TYPE_CHECKING:
    from cypher.config import InferencePrecision


class Delta(nn.Module, ABC):
    """A trained change of one linear layer's output.

    Attributes:
        is_mergeable: Whether :meth:`merged` can do without it; of an instance, because options may forbid it.
        enters: Whether :meth:`enter` changes anything.
        input_dims: Dim of a parameter that counts the layer's inputs, by its name; none of the others has any.
            ``None`` says nothing, so layers that carry the delta cannot be divided.
        output_dims: Likewise, the layer's outputs.
    """

    is_mergeable: bool = True
    enters: ClassVar[bool] = False
    input_dims: ClassVar[Mapping[str, int] | None] = None
    output_dims: ClassVar[Mapping[str, int] | None] = None

    def narrow(self, inputs: slice, outputs: slice) -> None:
        """Be part of a layer that has only some of the inputs and outputs; parameters are cut by their dims already.

        Args:
            inputs: Of the whole layer's.
            outputs: Likewise.
        """

    def enter(self, values: Tensor) -> Tensor:
        """What the layer, and the deltas before this one, are to be given instead of ``values (…, in_features)``."""
        return values

    @abstractmethod
    def forward(self, values: Tensor, output: Tensor) -> Tensor:
        """Change the layer's output.

        Args:
            values: ``(…, in_features)``, what the layer was given.
            output: ``(…, out_features)``, what it and the deltas before this one made of it.
        """

    @abstractmethod
    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The weight and bias that do the same without the delta (its dropout aside); neither is changed in place.

        Args:
            weight: ``(out_features, in_features)``.
            bias: ``(out_features,)``, or ``None`` where the layer has none.

        Raises:
            ModelError: No weight does the same; with the reason.
        """


class Linear(nn.Linear):
    """``nn.Linear`` whose output the attached ``deltas`` change, in the order they were attached.

    ``weight`` and ``bias`` keep their names whatever is attached, so checkpoints and name maps never depend on it.

    Args:
        in_features: Width of the input.
        out_features: Width of the output.
        bias: Whether a bias is added.
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.deltas = nn.ModuleDict()
        self.packed: PackedLinear | None = None
        self.frozen: FrozenLinear | None = None

    def forward(self, values: Tensor) -> Tensor:
        """``(…, in_features) -> (…, out_features)``."""
        if self.packed is not None:
            return self.packed(values)
        if not self.deltas:
            return self._product(values)
        given: dict[str, Tensor] = {}
        if any(delta.enters for delta in self.deltas.values()):
            (entered,) = go_through(EnterPassage(parts=self.deltas, changing=(values,), given=given))
            assert entered is not None, "a layer is given something"
            values = entered
        output = self._product(values)
        passage = DeltaPassage(parts=self.deltas, changing=(output,), constant=(values,), given=given)
        return cast(Tensor, go_through(passage)[0])

    def _product(self, values: Tensor) -> Tensor:
        """The layer without its deltas."""
        frozen = self.frozen
        if frozen is not None and values.dtype == self.weight.dtype and frozen.is_made_of(self.weight, self.bias):
            return frozen(values)
        bias = None if self.bias is None else self.bias.to(values.dtype)
        return F.linear(values, self.weight.to(values.dtype), bias)

    def freeze(self) -> None:
        """Lay the weight out for training that leaves it as it is; nothing where it is trained, or has no kernel."""
        is_trained = any(parameter.requires_grad for parameter in (self.weight, self.bias) if parameter is not None)
        self.frozen = None if is_trained or not freezes(self.weight) else FrozenLinear(self.weight, self.bias)

    @torch.no_grad()
    def merge(self) -> None:
        """Fold every delta into the weight and drop it: the same function at no extra cost.

        Raises:
            ModelError: A delta cannot be folded; the layer is unchanged then.
        """
        if not self.deltas:
            return
        weight: Tensor = self.weight.detach()
        bias: Tensor | None = None if self.bias is None else self.bias.detach()
        for delta in self.deltas.values():
            weight, bias = cast(Delta, delta).merged(weight, bias)
        self.weight.copy_(weight)
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)
        self.deltas.clear()

    def pack(
        self,
        precision: InferencePrecision,
        activation: str | None = None,
        output_dtype: torch.dtype = torch.float32,
    ) -> None:
        """Lay the weight out for this machine's fastest inference kernel; training is over for this layer.

        A layer with a delta that no weight can take in stays as it is.

        Args:
            precision: ``fp32``, ``bf16`` or ``int8``.
            activation: ``"gelu"`` to apply it inside the kernel; the caller then leaves it out.
            output_dtype: Of ``int8``; the others give back the dtype they are given.
        """
        if not self.is_mergeable:
            return
        weight, bias = self.release()
        self.packed = pack_linear(weight, bias, precision, activation, output_dtype)

    def release(self) -> tuple[Tensor, Tensor | None]:
        """Give the merged weight and bias to a kernel; the layer keeps none, which would double the memory."""
        self.merge()
        self.frozen = None
        weight, bias = self.weight.detach(), None if self.bias is None else self.bias.detach()
        self.weight = nn.Parameter(torch.empty(0), requires_grad=False)
        if self.bias is not None:
            self.bias = nn.Parameter(torch.empty(0), requires_grad=False)
        return weight, bias

    def plain(self) -> tuple[Tensor, Tensor | None] | None:
        """Weight ``(out_features, in_features)`` and bias, packed or not; ``None`` in 8 bits or beside deltas."""
        if self.packed is not None:
            return self.packed.plain()
        return None if self.deltas else (self.weight, self.bias)

    @property
    def is_mergeable(self) -> bool:
        """Whether every delta can be folded into the weight."""
        return all(cast(Delta, delta).is_mergeable for delta in self.deltas.values())

    @property
    def is_released(self) -> bool:
        """Whether a kernel has its weight."""
        return self.weight.numel() == 0
