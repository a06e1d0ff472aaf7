"""`trans4init translate`: turn lines into their targets by a trained model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

__all__ = ["Translate"]


@dataclass(frozen=True)
class Translate:
    """Turn each line of standard input into its target, by a model trained on pairs (sentences, commands, sums).

    At a terminal it asks for a line at a time. Seconds and tokens per second go to standard error.
    """

    checkpoint: Positional[Path]
    """A run's folder, or one of its .safetensors files."""
    text: Annotated[str | None, arg(metavar="TEXT", help_behavior_hint="(default: lines of standard input)")] = None
    """Translate this text instead."""
    beam: int = 4
    """Number of hypotheses of the beam search; 1 decodes greedily."""
    length_penalty: float = 0.6
    """How much the search favours longer targets: α of Wu et al. 2016, equation 14."""
    maximum: int = 100
    """The largest number of tokens of a target."""

    allow_code: bool = False
    """Run code that the checkpoint names (FILE.py:NAME)."""

    def run(self, command: str) -> int:
        """Translate the text, or every line."""
        from trans4init.ablations.cli.lines import answer_lines
        from trans4init.ablations.code_policy import code_policy
        from trans4init.ablations.errors import InputError
        from trans4init.ablations.training.inference import translate
        from trans4init.ablations.training.run import load_trained

        with code_policy(allowed=self.allow_code):
            trained = load_trained(self.checkpoint)
        if self.maximum < 1:
            raise InputError(f"--maximum must be at least 1, not {self.maximum}.")

        def answer(line: str) -> tuple[str, int]:
            return translate(trained, line, beam=self.beam, alpha=self.length_penalty, maximum=self.maximum)

        return answer_lines(answer, None if self.text is None else [self.text])
