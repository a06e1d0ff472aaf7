"""`trans4init generate`: let a trained language model continue a text."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

__all__ = ["Generate"]


@dataclass(frozen=True)
class Generate:
    """Continue each line of standard input, by a model that was trained on task text.

    At a terminal it asks for a line at a time. Seconds and tokens per second go to standard error.
    """

    checkpoint: Positional[Path]
    """A run's folder, or one of its .safetensors files."""
    prompt: Annotated[str | None, arg(metavar="TEXT", help_behavior_hint="(default: lines of standard input)")] = None
    """Continue this text instead."""
    tokens: int = 300
    """Number of tokens to generate."""
    temperature: float = 0.8
    """The logits are divided by this; 0 takes the likeliest token every time."""
    top_k: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: all)")] = None
    """Draw among the N likeliest tokens."""
    top_p: Annotated[float | None, arg(metavar="P", help_behavior_hint="(default: all)")] = None
    """Draw among the fewest tokens that together have this probability."""
    seed: int = 0
    """The same seed draws the same text."""

    allow_code: bool = False
    """Run code that the checkpoint names (FILE.py:NAME)."""

    def run(self, command: str) -> int:
        """Continue the prompt, or every line."""
        from trans4init.ablations.cli.lines import answer_lines
        from trans4init.ablations.code_policy import code_policy
        from trans4init.ablations.errors import InputError
        from trans4init.ablations.training.inference import Sampling, generate
        from trans4init.ablations.training.run import load_trained

        with code_policy(allowed=self.allow_code):
            trained = load_trained(self.checkpoint)
        if self.tokens < 1:
            raise InputError(f"--tokens must be at least 1, not {self.tokens}.")
        sampling = Sampling(self.temperature, self.top_k, self.top_p, self.seed)

        def answer(line: str) -> tuple[str, int]:
            return line + generate(trained, line, self.tokens, sampling), self.tokens

        return answer_lines(answer, None if self.prompt is None else [self.prompt])
