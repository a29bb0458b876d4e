"""Stretches of blocks in processes of their own, micro-batches passing through them by a schedule.

GPipe (Huang et al. 2018, arXiv 1811.06965), 1F1B (Narayanan et al. 2019, SOSP; 2021, arXiv 2104.04473, also
interleaved), zero bubbles (Qi et al. 2023, arXiv 2401.10241, and their V shape) and DualPipeV, all as
``torch.distributed.pipelining`` runs them. What is ours: stages that are given the micro-batch itself and not tensors
cut from it, so that rows of any length and number pass through buffers of one shape.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import (
    PipelineStage,
    Schedule1F1B,
    ScheduleDualPipeV,
    ScheduleGPipe,
    ScheduleInterleaved1F1B,
    ScheduleInterleavedZeroBubble,
    ScheduleLoopedBFS,
    ScheduleZBVZeroBubble,
)
from torch.distributed.tensor import DTensor

from cypher.config.parallel import Schedule
from cypher.data.batch_workers import one_at_a_time
from cypher.models.headed import HeadedModel
from cypher.models.model import LanguageHead
from cypher.models.stretch import Carried
from cypher.parallel.clip import clip, settle
from cypher.parallel.engine import Engine, Objective, Portion, Predict
from cypher.parallel.penalise import penalise
from cypher.parallel.relay import Relayed, relaying
from cypher.parallel.rows import join_rows, own_rows
from cypher.parallel.shard import divided_again
from cypher.parallel.stages import (
    Boundary,
    Capacity,
    apart_refusals,
    cut,
    first_names,
    keep,
    needs_whole_backward,
    parts_of,
    relays,
    stages_of,
    tokens_in_front,
)
from cypher.parallel.world import World

Found = TypeVar("Found")

_SCHEDULES: dict[Schedule, Any] = {
    "gpipe": ScheduleGPipe,
    "1f1b": Schedule1F1B,
    "looped_bfs": ScheduleLoopedBFS,
    "interleaved": ScheduleInterleaved1F1B,
    "interleaved_zero_bubble": ScheduleInterleavedZeroBubble,
    "zbv_zero_bubble": ScheduleZBVZeroBubble,
    "dualpipe_v": ScheduleDualPipeV,
}


# Each has buffers of its size; lengths that come again find theirs, and those of long ago go.
_MOST_SCHEDULES = 8


class Step:
    """What all stages of a process work on at the moment.

    Attributes:
        objective: Of the step.
        portions: Its micro-batches.
        capacity: Room for the largest of them.
    """

    objective: Objective
    portions: Sequence[Portion]
    capacity: Capacity


class Stage(nn.Module):
    """One stretch of blocks, with what its ends need.

    Args:
        headed: Of which this process has some modules.
        stretch: Of blocks.
        number: Of the stage.
        owned: Modules of this stage; nothing else of ``headed`` is registered, so that parameters are its own.
        in_front: Tokens that are put in front of others, by segment.
        step: Shared with the other stages of this process.
        scale: Factor on the shares of the loss: gradients are averaged over as many copies.
        has_whole_backward: Whether gradients of weights are worked out with those of inputs, under any schedule.
    """

    def __init__(
        self,
        headed: HeadedModel,
        stretch: range,
        number: int,
        owned: Sequence[nn.Module],
        in_front: dict[str, int],
        step: Step,
        scale: float,
        has_whole_backward: bool,
    ) -> None:
        super().__init__()
        self.has_whole_backward = has_whole_backward
        self.owned = nn.ModuleList(owned)
        self.number, self.stretch, self.in_front, self.step, self.scale = number, stretch, in_front, step, scale
        self._headed = (headed,)
        last = sum(1 for _ in headed.model.blocks())
        self.received = None if stretch.start == 0 else Boundary.before(headed.model, stretch.start)
        self.sent = None if stretch.stop == last else Boundary.before(headed.model, stretch.stop)
        self._met: Tensor | None = None
        for segment, site in zip(headed.model.segments, headed.model.embedding_sites, strict=True):
            if stretch.start and self._begins(segment):
                site.register_forward_hook(self._meet)

    def _begins(self, segment: str) -> bool:
        """Whether the first block of a segment is in this stretch."""
        names = [name.rpartition(".")[0] for name, _ in self._headed[0].model.blocks()]
        return names.index(segment) in self.stretch

    def _meet(self, site: nn.Module, given: Any, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        hidden, mask = output
        return (hidden if self._met is None else cast(Tensor, _Meeting.apply(hidden, self._met))), mask  # type: ignore[no-untyped-call]

    def forward(self, *received: Tensor, place: Tensor | None = None, work: Callable[[], Found] | None = None) -> Any:
        """Run the blocks for one micro-batch, or do some other work with the model, its parameters gathered.

        Args:
            received: Of the stage before.
            place: ``(1,)`` int64, which micro-batch.
            work: Done instead.

        Returns:
            What is sent to the next stage, or the share of the loss; or what ``work`` gives.
        """
        if work is not None:
            return work()
        assert place is not None, "a schedule says which micro-batch it wants"
        (headed,) = self._headed
        portion, capacity = self.step.portions[int(place)], self.step.capacity
        inputs = self.step.objective.reads(portion.batch)
        carried: Carried | None = None
        if self.received is not None:
            carried = capacity.unpacked(received, self.received, headed.model, self.in_front, inputs)
            self._met = carried.hidden
        carried = headed.model.run(inputs, carried, stretch=self.stretch)
        self._met = None
        if self.sent is not None:
            return capacity.packed(carried, self.sent)
        encoded = headed.model.encoded(inputs, carried)
        return torch.stack([self.step.objective.share(headed.head, encoded, portion) * self.scale])


class _Meeting(torch.autograd.Function):
    """Hidden states that begin inside of a pipeline, made to hang on what was received.

    Schedules without bubbles work out the gradients of a stage's inputs first and those of its weights later. They
    find the weights from the inputs, and trip over those that no input has passed: a decoder's up to its source.
    """

    @staticmethod
    def forward(context: Any, hidden: Tensor, received: Tensor) -> Tensor:
        return hidden.view_as(hidden)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class PipelineEngine(Engine):
    """Stages of this process, and the schedule they follow with those of the others.

    Args:
        headed: Of which this process has some modules.
        stages: Of this process, in order.
        modules: The same, wrapped by DDP or sharded by FSDP2 where there are copies.
        world: All processes.
        names: Those of :func:`cypher.parallel.stages.first_names`.
        step: The stages'.
        in_front: Tokens that are put in front of others, by segment.
        relayed: What is sent around when the model is used whole.
        settle_parts: Sums what divided matrices leave partial, before the clip.
    """

    def __init__(
        self,
        headed: HeadedModel,
        stages: Sequence[Stage],
        modules: Sequence[nn.Module],
        world: World,
        *,
        names: dict[str, str],
        step: Step,
        in_front: dict[str, int],
        relayed: dict[str, Relayed],
        settle_parts: Callable[[], None],
    ) -> None:
        own = {id(parameter) for stage in stages for parameter in stage.parameters()}
        trained = {names[name]: parameter for name, parameter in headed.trained().items() if id(parameter) in own}
        super().__init__(headed, world, trained)
        self.parts = world.plan.pipeline_microbatches
        self.stages, self.modules = stages, modules
        self.step, self.in_front, self.relayed, self.settle_parts = step, in_front, relayed, settle_parts
        self._schedules: dict[Capacity, Any] = {}
        self._is_last = any(stage.sent is None for stage in stages)
        self.shared = self._shared()

    def _shared(self) -> dict[str, list[int]]:
        """Parameters of several processes of the pipeline, with their places, the first of which counts them."""
        offered: list[list[str]] = [[] for _ in range(self.world.plan.pp)]
        dist.all_gather_object(offered, sorted(self.trained), group=self.world.group("pp"))
        holders: dict[str, list[int]] = {}
        for place, names in enumerate(offered):
            for name in names:
                holders.setdefault(name, []).append(place)
        return {name: places for name, places in sorted(holders.items()) if len(places) > 1}

    def backward(self, objective: Objective, portions: Sequence[Portion]) -> float:
        """As in :class:`Engine`."""
        self.step.objective = objective
        inputs = [objective.reads(portion.batch) for portion in portions]
        self.step.capacity = Capacity.of(self.headed.model, self.in_front, inputs)
        schedule, loss = self._schedule(self.step.capacity), 0.0
        places = torch.arange(self.parts)
        # With accumulation there are several times as many, which go through one after the other.
        for start in range(0, len(portions), self.parts):
            self.step.portions = portions[start : start + self.parts]
            losses: list[Tensor] = []
            target = torch.zeros(self.parts) if self._is_last else None
            schedule.step(places, place=places, target=target, losses=losses if self._is_last else None)
            loss += sum(share.item() for share in losses)
        self.step.portions = ()
        settle(self.trained.values())
        self.settle_parts()
        self._sum_shared()
        penalty = penalise(self.stages)
        scale = self.world.plan.dp
        total, penalties = self.world.total([loss / scale, penalty / scale], over=("replicate", "shard", "pp"))
        return total + penalties

    def _schedule(self, capacity: Capacity) -> Any:
        if capacity not in self._schedules:
            plan, model = self.world.plan, self.headed.model
            made = []
            for stage, module in zip(self.stages, self.modules, strict=True):
                given: tuple[Tensor, ...] = (torch.zeros(1, dtype=torch.int64),)
                if stage.received is not None:
                    given = capacity.examples(stage.received, width=model.width, dtype=model.compute_dtype)
                sent: tuple[Tensor, ...] = (torch.zeros(1, requires_grad=True),)
                if stage.sent is not None:
                    sent = capacity.examples(stage.sent, width=model.width, dtype=model.compute_dtype)
                made.append(
                    PipelineStage(
                        module,
                        stage.number,
                        plan.stages,
                        torch.device("cpu"),
                        input_args=given,
                        output_args=sent,
                        group=self.world.group("pp"),
                        dw_builder=_nothing_later if stage.has_whole_backward else None,
                    )
                )
            stages = made[0] if plan.stages_per_rank == 1 else made
            if len(self._schedules) == _MOST_SCHEDULES:
                del self._schedules[next(iter(self._schedules))]
            self._schedules[capacity] = _SCHEDULES[plan.schedule](
                stages, plan.pipeline_microbatches, loss_fn=_identity, scale_grads=False
            )
        return self._schedules[capacity]

    def _sum_shared(self) -> None:
        """The gradient of what several stages hold is the sum of theirs: to the first of them, and back."""
        if not self.shared:
            return
        own, group = self.world.place("pp"), self.world.group("pp")
        held = [self.trained.get(name) for name in self.shared]
        # What no stage has used in this step has no gradient, and the optimiser leaves it alone.
        used = self.world.total([float(one is not None and one.grad is not None) for one in held], over=("pp",))
        for (name, places), uses in zip(self.shared.items(), used, strict=True):
            if own not in places or not uses:
                continue
            parameter = self.trained[name]
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            local = parameter.grad.to_local() if isinstance(parameter.grad, DTensor) else parameter.grad
            summed = local.clone(memory_format=torch.contiguous_format)
            if own == places[0]:
                received = torch.empty_like(summed)
                for other in places[1:]:
                    dist.recv(received, group=group, group_src=other)
                    summed.add_(received)
                for other in places[1:]:
                    dist.send(summed, group=group, group_dst=other)
            else:
                dist.send(summed, group=group, group_dst=places[0])
                dist.recv(summed, group=group, group_src=places[0])
            local.copy_(summed)

    def clip(self, max_norm: float) -> float:
        """As in :class:`Engine`."""
        own = self.world.place("pp")
        elsewhere = [self.trained[name] for name, places in self.shared.items() if own in places[1:]]
        return clip(self.trained.values(), max_norm, world=self.world, counted_elsewhere=elsewhere)

    def predict(self, predict: Predict, rows: Sequence[Any]) -> list[Any]:
        """As in :class:`Engine`: one stage works at a time, in all processes of a pipeline at once."""
        self._refresh_head()
        divides = self.world.plan.is_sharded
        asked = rows if divides else own_rows(rows, self.world)

        def work() -> list[Any]:
            with relaying(self.headed, self.relayed, self.world):
                return predict(self.headed, asked)

        for module, stage in zip(self.modules, self.stages, strict=True):
            work = _inside(module if divides else stage, work)
        with one_at_a_time(), divided_again(self.modules):
            found = work()
        return found if divides else join_rows(found, len(rows), self.world)

    @torch.no_grad()
    def _refresh_head(self) -> None:
        """A head with parameters of its own is used by all processes, and trained by the last stage alone."""
        head = self.headed.head
        if isinstance(head, LanguageHead):
            return
        owner = self.world.plan.last_place
        for parameter in head.parameters():
            value = parameter.detach()
            whole = value.full_tensor() if isinstance(value, DTensor) else value.contiguous()
            dist.broadcast(whole, group=self.world.group("pp"), group_src=owner)
            if self.world.place("pp") != owner:
                parameter.data.copy_(whole)


def pipeline(
    headed: HeadedModel,
    world: World,
    *,
    cut_matrices: Callable[[Sequence[range]], None],
    copied: Callable[[nn.Module, Sequence[nn.Module]], nn.Module],
    settle_parts: Callable[[], None],
) -> PipelineEngine:
    """Keep this process's stages of a model, and nothing else of it.

    Args:
        headed: The whole of it; changed in place.
        world: All processes.
        cut_matrices: Called when only what is kept is there, with the places of the blocks that follow each other.
        copied: Wraps a stage, given with its blocks, for its copies.
        settle_parts: Called before the clip.

    Raises:
        ConfigError: There are more stages than blocks.
    """
    plan = world.plan
    # On any error it prints the whole schedule, in which the error itself is lost.
    logging.getLogger("torch.distributed.pipelining.schedules").setLevel(logging.CRITICAL)
    names = [name for name, _ in headed.model.blocks()]
    stretches = cut(len(names), plan.stages)
    places = [next(rank for rank in range(plan.pp) if stage in stages_of(plan, rank)) for stage in range(plan.stages)]
    parts = [parts_of(headed, stretch) for stretch in stretches]
    for refusal in apart_refusals(headed, plan):
        raise refusal
    whole_backward = [needs_whole_backward(headed, one) for one in parts]
    relayed, in_front = relays(headed, stretches, places), tokens_in_front(headed.model)
    own, parameter_names = stages_of(plan, world.place("pp")), first_names(headed)
    # What predictions ask of a head is not its forward alone, so every process has it.
    keep(headed, set[str]().union({"head"}, *(parts[stage] for stage in own)), relayed)
    cut_matrices([stretches[stage] for stage in own])
    step = Step()
    stages = [
        Stage(
            headed,
            stretches[stage],
            stage,
            [headed.get_submodule(part) for part in sorted(parts[stage])],
            in_front,
            step,
            scale=float(plan.dp),
            has_whole_backward=whole_backward[stage],
        )
        for stage in own
    ]
    blocks = {name: headed.model.get_submodule(f"segments.{name}") for name in names}
    modules = [
        copied(stage, [blocks[name] for name in names[stage.stretch.start : stage.stretch.stop]]) for stage in stages
    ]
    return PipelineEngine(
        headed,
        stages,
        modules,
        world,
        names=parameter_names,
        step=step,
        in_front=in_front,
        relayed=relayed,
        settle_parts=settle_parts,
    )


def _inside(module: nn.Module, work: Callable[[], list[Any]]) -> Callable[[], list[Any]]:
    return lambda: module(work=work)


def _nothing_later() -> Callable[[], None]:
    """What a stage that works out all gradients at once does when those of weights are due."""
    return lambda: None


def _identity(share: Tensor, target: Tensor) -> Tensor:
    """The last stage has worked the loss out; a sum of one, because schedules want no view of it."""
    return share.sum()
