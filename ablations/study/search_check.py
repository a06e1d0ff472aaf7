"""Try the corners of a study's search space before any run: each net and model that trials may ask for can be built."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from trans4init.ablations.errors import InputError, nearest
from trans4init.ablations.nets import net_class
from trans4init.ablations.study.proposals import check_sampler
from trans4init.ablations.study.pruning import check_pruner
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.ablations.study.space import NET, of_nets, of_training, shapes_runs
from trans4init.reports.records.tuning_design import Setting

__all__ = ["check_search", "corners"]

_MOST_CORNERS = 64
"""Corners of the space that are tried: of a space with more, those that differ from the study's own in one setting."""


def check_search(study: ResolvedStudy) -> None:
    """Raise InputError for a sampler, a pruner, or a size of a net or a model in the space that there can't be."""
    spec = study.spec
    check_sampler(spec)
    check_pruner(spec)
    own = spec.own_settings()
    kinds = spec.tuning.space[NET].choices or () if NET in spec.tuning.space else [net.name for net in spec.nets]
    options = sorted({option for kind in kinds for option in net_class(str(kind)).Size.model_fields})
    for option in of_nets(own):
        if option not in options:
            close = nearest(option, options)
            hint = f"did you mean {close!r}?" if close else f"there are: {', '.join(options) or 'none'}"
            raise InputError(f"[tuning.space] nets.{option}: no net of the study has that option; {hint}")
    for settings in corners(study):
        tried = replace(study, settings=settings)
        tried.model.shapes()
    for settings in corners(study, of_training):
        _ = replace(study, settings=settings).training  # raises for settings that don't fit together


def corners(
    study: ResolvedStudy, of: Callable[[Mapping[str, Setting]], Mapping[str, Setting]] = shapes_runs
) -> Iterator[dict[str, Setting]]:
    """Yield settings from the ends of their ranges, or each choice of those that have some.

    of: picks the settings that are varied, by default those of nets and models.
    """
    own = study.spec.own_settings()
    ends = {
        tuned.name: [tuned.at(0.0), tuned.at(1.0)] if not tuned.choices else [*map(_listed, tuned.choices)]
        for tuned in study.spec.tuning.ranges()
        if tuned.name in of(own)
    }
    if not ends:
        return
    together = list(itertools.islice(itertools.product(*ends.values()), _MOST_CORNERS + 1))
    if len(together) <= _MOST_CORNERS:
        yield from ({**own, **dict(zip(ends, values, strict=True))} for values in together)
        return
    yield from ({**own, name: value} for name, values in ends.items() for value in values)


def _listed(choice: object) -> Setting:
    return list(choice) if isinstance(choice, tuple) else choice  # type: ignore[return-value]
