"""``[parallel]``: over how many processes a model is trained, and how it is divided between them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from cypher.config.section import Section, parse
from cypher.errors import ConfigError

Schedule = Literal[
    "gpipe", "1f1b", "looped_bfs", "interleaved", "interleaved_zero_bubble", "zbv_zero_bubble", "dualpipe_v"
]
"""Orders in which the micro-batches of a pipeline go forward and backward."""

Zero = Literal[0, 1, 2, 3]
"""What is divided over the copies of a model: nothing, the optimiser's state, gradients too, parameters too."""

# Two stages a process: each holds two stretches of the model that do not follow each other.
TWO_STAGES: frozenset[Schedule] = frozenset(
    {"looped_bfs", "interleaved", "interleaved_zero_bubble", "zbv_zero_bubble", "dualpipe_v"}
)
# Where the second stretches go back the way the first ones came: the last stage is where the first one is.
V_SHAPED: frozenset[Schedule] = frozenset({"zbv_zero_bubble", "dualpipe_v"})


class ParallelPlan(Section):
    """Degrees of every kind of parallelism; their product is the number of processes.

    The words are those of the introduction to model parallelism of 2021: DataParallel (``dp``), ZeRO and Sharded DDP
    (``zero``), TensorParallel (``tp``), PipelineParallel (``pp``), and 2D and 3D their products.

    Example:
        >>> plan = ParallelPlan.parse("dp=2,tp=2,zero=3")
        >>> plan.world, plan.shards, str(plan)
        (4, 2, 'dp=2,tp=2,zero=3')
    """

    dp: int = Field(default=1, ge=1)
    """Copies of the model, each with its share of the batch (data parallelism)."""
    tp: int = Field(default=1, ge=1)
    """Parts that every matrix is cut into (tensor parallelism; Shoeybi et al. 2019, arXiv 1909.08053)."""
    pp: int = Field(default=1, ge=1)
    """Stretches of blocks, each in a process of its own (pipeline parallelism; Huang et al. 2018, arXiv 1811.06965)."""
    zero: Zero = 0
    """What is divided over the copies (Rajbhandari et al. 2019, arXiv 1910.02054): 1 the optimiser's state, 2 gradients
    too, 3 parameters too; ``sharded_ddp``, as the newsletters of 2021 call it, is 2."""
    replicas: int = Field(default=1, ge=1)
    """Groups of copies, within each of which zero 2 or 3 divides (hybrid sharding); divides dp."""
    sequence_parallel: bool = False
    """Whether norms and joins work on a share of the tokens each, beside tp (Korthikanti et al. 2022,
    arXiv 2205.05198)."""
    microbatches: int | None = Field(default=None, ge=1)
    """Parts that a pipeline works on at once; null is twice pp."""
    schedule: Schedule = "1f1b"
    """Order in which a pipeline's micro-batches go forward and backward."""
    offload: bool = False
    """Whether what zero 2 or 3 divides waits in the processor's memory, for models on accelerators."""
    activation_checkpointing: bool = False
    """Whether a block's inner activations are computed again in the backward instead of kept (Chen et al. 2016,
    arXiv 1604.06174)."""

    @field_validator("zero", mode="before")
    @classmethod
    def _zero_by_name(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("zero is 0, 1, 2 or 3")
        return 2 if value == "sharded_ddp" else value

    @model_validator(mode="after")
    def _fits_together(self) -> ParallelPlan:
        if self.zero and self.dp == 1:
            raise ValueError(f"zero = {self.zero} divides over copies, and dp = 1 is one: set dp to 2 or more")
        if self.dp % self.replicas:
            raise ValueError(f"replicas = {self.replicas} does not divide dp = {self.dp}")
        if self.replicas > 1 and (self.zero < 2 or self.shards == 1):
            raise ValueError(
                f"replicas = {self.replicas} with dp = {self.dp} and zero = {self.zero}: groups of copies are for "
                "zero = 2 or 3, and need two copies each or more"
            )
        if self.zero == 1 and self.tp > 1:
            raise ValueError(
                "zero = 1 with tp > 1: the optimiser that divides its state knows no divided matrices: set zero to 2"
            )
        if self.offload and self.zero < 2:
            raise ValueError(f"offload with zero = {self.zero}: only what zero 2 or 3 divides can wait elsewhere")
        if self.sequence_parallel and self.tp == 1:
            raise ValueError("sequence_parallel divides the tokens over tp, which is 1: set tp to 2 or more")
        if self.pp == 1 and self.microbatches is not None:
            raise ValueError(
                "microbatches are those of a pipeline, and pp = 1: set train.accumulation to cut a step into parts"
            )
        if self.pp == 1 and self.schedule != "1f1b":
            raise ValueError(f"schedule = {self.schedule} with pp = 1: a pipeline has two stages or more")
        return self

    @property
    def world(self) -> int:
        """Number of processes."""
        return self.dp * self.tp * self.pp

    @property
    def shards(self) -> int:
        """Copies over which zero 2 or 3 divides; 1 where it does not."""
        return self.dp // self.replicas if self.zero >= 2 else 1

    @property
    def is_sharded(self) -> bool:
        """Whether copies are FSDP2's; beside ``tp``, whose matrices DDP does not know, as shards of size 1."""
        return self.zero >= 2 or (self.tp > 1 and self.dp > 1)

    @property
    def stages_per_rank(self) -> int:
        """Stretches of blocks that a process of a pipeline holds."""
        return 2 if self.pp > 1 and self.schedule in TWO_STAGES else 1

    @property
    def last_place(self) -> int:
        """Place, on the ``pp`` axis, of the process that has the last stage."""
        return 0 if self.is_v_shaped else self.pp - 1

    @property
    def stages(self) -> int:
        """Stretches of blocks in all."""
        return self.pp * self.stages_per_rank

    @property
    def is_v_shaped(self) -> bool:
        """Whether the last stage of a pipeline is in the process of the first."""
        return self.pp > 1 and self.schedule in V_SHAPED

    @property
    def pipeline_microbatches(self) -> int:
        """Parts that a pipeline works on at once; 1 without one."""
        return 1 if self.pp == 1 else self.microbatches or 2 * self.pp

    @classmethod
    def parse(cls, text: str) -> ParallelPlan:
        """Read a plan as the command line gives it.

        Args:
            text: ``key=value``, separated by commas; a switch alone is ``true``; ``sharded_ddp`` is ``zero=2``.

        Raises:
            ConfigError: A key is unknown, or a value cannot work.
        """
        values: dict[str, Any] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            key, equals, value = (piece.strip() for piece in part.partition("="))
            if key == "sharded_ddp" and not equals:
                key, equals, value = "zero", "=", key
            field = cls.model_fields.get(key)
            if field is not None and field.annotation is not bool and not equals:
                raise ConfigError(f"--parallel {text}: {key} has no value", change=f"write {key}=…")
            if key in values:
                raise ConfigError(f"--parallel {text}: {key} stands twice", change="name it once")
            values[key] = _value(value) if equals else True
        plan: ParallelPlan = parse(cls, values, where=f"--parallel {text}")
        return plan

    def __str__(self) -> str:
        values = self.model_dump(exclude_defaults=True)
        return ",".join(key if value is True else f"{key}={value}" for key, value in values.items()) or "dp=1"


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    return int(text) if text.lstrip("-").isdigit() else text
