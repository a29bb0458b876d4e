"""``[arrangement]``: trained adapters beside what is trained, and blocks that training leaves out."""

from __future__ import annotations

from pydantic import Field, model_validator

from cypher.config.fusion import FusionConfig
from cypher.config.section import Section


class ArrangementConfig(Section):
    """How adapters work together in a run; each that is named is a run, a folder, or ``owner/name`` on the hub."""

    stack_on: str | None = None
    """Trained adapter that comes first and stays as it is; what [adapter] or fuse says is trained behind it."""
    fuse: tuple[str, ...] = ()
    """Trained adapters that stay as they are, two or more, between which a new attention is trained (AdapterFusion);
    then there is no [adapter]."""
    fusion: FusionConfig = FusionConfig()
    """Of that attention."""
    drop_in_training: int = Field(default=0, ge=0)
    """In each training step the adapters of the first 0 to so many blocks are left out, by a draw (AdapterDrop, Rücklé
    et al. 2021, arXiv 2010.11918): the task then stands it when they are left out for speed."""

    @model_validator(mode="after")
    def _fusion_is_of_several(self) -> ArrangementConfig:
        if len(self.fuse) == 1:
            raise ValueError("fuse weighs two or more adapters against each other: name another, or take stack_on")
        if not self.fuse and self.fusion != FusionConfig():
            raise ValueError("fusion says how adapters are fused, and fuse names none")
        return self
