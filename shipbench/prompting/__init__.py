"""The prompted forward pass over a frozen timm ``VisionTransformer``: image tokens in, CLS token out.

It serves every prompt-tuning method and depends on none. A method describes its prompts as a ``PromptSource``;
``prompted_forward`` computes only what the logits and the loss need.
"""

from shipbench.prompting.architectures import add_positions, block_outputs, image_token_count, reads_class_token
from shipbench.prompting.evaluation import evaluating
from shipbench.prompting.forward import (
    PassOutput,
    PassTrace,
    embed,
    frozen,
    pool,
    prompted_forward,
    read_out,
    rows_to_read,
)
from shipbench.prompting.heads import new_head
from shipbench.prompting.interface import AttentionRule, BlockPlan, Glimpse, LastRows, PromptSource
from shipbench.prompting.stacked import StackInput, draw_stack_input, stacked_forward
from shipbench.prompting.step_buffer import StepBuffer
from shipbench.prompting.stochastic_depth import DropFactors, StochasticDepth, drop_rates, sample_drop_factors
from shipbench.prompting.traced import Traceable, Traced

__all__ = [
    "AttentionRule",
    "BlockPlan",
    "DropFactors",
    "Glimpse",
    "LastRows",
    "PassOutput",
    "PassTrace",
    "PromptSource",
    "StackInput",
    "StepBuffer",
    "StochasticDepth",
    "Traceable",
    "Traced",
    "add_positions",
    "block_outputs",
    "draw_stack_input",
    "drop_rates",
    "embed",
    "evaluating",
    "frozen",
    "image_token_count",
    "new_head",
    "pool",
    "prompted_forward",
    "read_out",
    "reads_class_token",
    "rows_to_read",
    "sample_drop_factors",
    "stacked_forward",
]
