"""Plant known faults in the code that makes verdicts, and see whether the tests fail: `python tests/mutants.py`.

Each mutant replaces one piece of text in one file of a copy of the project and runs the tests that are closest to it.
It is killed when they fail. To run only some, give their names: `python tests/mutants.py equivalence-without-holm`.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ("ablations", "bench", "kernels", "reports")
KILLED_AT_LEAST = 0.95
"""Share of the mutants that the tests must kill; `nox -s mutants` fails below it."""
TIME_LIMIT = 600
"""Seconds after which the tests of a mutant are stopped. A mutant that makes them hang counts as killed."""


@dataclass(frozen=True)
class Mutant:
    """Plants one fault: `old` stands exactly once in `file` and becomes `new`; `tests` are what should notice."""

    name: str
    file: str
    old: str
    new: str
    tests: str
    """Words for pytest, paths below `tests/`, separated by spaces."""


MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "equivalence-without-holm",
        "reports/study_report/verdict.py",
        "p_equivalent=equivalent[index],",
        "p_equivalent=evidence[index].p_equivalent(margin),",
        "reports/study_report/test_verdict.py reports/study_report/test_wiring.py",
    ),
    Mutant(
        "difference-without-holm",
        "reports/study_report/verdict.py",
        "p_different=different[index],",
        "p_different=raw[index],",
        "reports/study_report/test_verdict.py reports/study_report/test_wiring.py",
    ),
    Mutant(
        "holm-over-cells-at-hand",
        "reports/study_report/verdict.py",
        "holm(filled + [1.0] * (self.planned - len(filled)))",
        "holm(filled)",
        "reports/study_report/test_verdict.py reports/study_report/test_wiring.py",
    ),
    Mutant(
        "visible-effect-of-one-comparison",
        "reports/study_report/verdict.py",
        "smallest_visible_effect(differences, family.planned, family.level)",
        "smallest_visible_effect(differences, 1, family.level)",
        "reports/study_report/test_verdict.py reports/study_report/test_wiring.py",
    ),
    Mutant(
        "better-and-worse-swapped",
        "reports/study_report/verdict.py",
        "(draft.mean > 0) == higher_is_better",
        "(draft.mean > 0) != higher_is_better",
        "reports/study_report/test_verdict.py reports/study_report/test_wiring.py",
    ),
    Mutant(
        "verdict-below-the-seed-floor",
        "reports/study_report/verdict.py",
        "if draft.pairs < floor:",
        "if draft.pairs < floor - 1:",
        "reports/study_report/test_verdict.py reports/study_report/test_wiring.py",
    ),
    Mutant(
        "different-before-equivalent",
        "reports/study_report/verdict.py",
        "if draft.p_equivalent < level:",
        "if draft.p_equivalent < level <= draft.p_different:",
        "reports/study_report/test_verdict.py reports/study_report/test_wiring.py",
    ),
    Mutant(
        "lost-runs-ignored",
        "reports/study_report/verdict.py",
        "if not flattered:",
        "if not flattered or lost:",
        "reports/study_report/test_verdict.py reports/study_report/test_wiring.py",
    ),
    Mutant(
        "reference-minus-cell",
        "reports/study_report/verdict.py",
        "seed: value - reference",
        "seed: reference - value",
        "reports/study_report/test_verdict.py reports/study_report/test_wiring.py",
    ),
    Mutant(
        "forward-speed-as-training-speed",
        "reports/study_report/speed.py",
        "for metric in (metrics.TRAINING_THROUGHPUT, metrics.FORWARD_THROUGHPUT)",
        "for metric in (metrics.FORWARD_THROUGHPUT, metrics.FORWARD_THROUGHPUT)",
        "reports/study_report/test_speed.py reports/study_report/test_summary.py reports/study_report/test_wiring.py",
    ),
    Mutant(
        "speed-ratio-inverted",
        "reports/study_report/speed.py",
        "rounds[number] / reference_rounds[number]",
        "reference_rounds[number] / rounds[number]",
        "reports/study_report/test_speed.py reports/study_report/test_summary.py reports/study_report/test_wiring.py",
    ),
    Mutant(
        "tokens-per-second-of-forward",
        "reports/study_report/speed.py",
        "pace = record.by_step(metrics.TRAINING_THROUGHPUT.name)",
        "pace = record.by_step(metrics.FORWARD_THROUGHPUT.name)",
        "reports/study_report/test_speed.py reports/study_report/test_summary.py reports/study_report/test_wiring.py",
    ),
    Mutant(
        "rounds-for-builds",
        "reports/study_report/speed.py",
        "builds.setdefault(number // builds_rounds, [])",
        "builds.setdefault(number, [])",
        "reports/study_report/test_speed.py reports/study_report/test_wiring.py",
    ),
    Mutant(
        "copy-as-reference",
        "reports/study_report/speed.py",
        "if seed != REFERENCE_COPY",
        "if True",
        "reports/study_report/test_speed.py reports/study_report/test_wiring.py",
    ),
    Mutant(
        "any-throughput-session",
        "reports/study_report/speed.py",
        "timed = record.run_id in card.throughput_runs or (not card.throughput_runs and as_chosen)",
        "timed = True",
        "reports/study_report/test_speed.py reports/study_report/test_summary.py reports/study_report/test_wiring.py",
    ),
    Mutant(
        "largest-drift-for-rms",
        "reports/study_report/summary.py",
        "metrics.SLOT_DRIFT_RMS.name",
        "metrics.SLOT_DRIFT_MAX.name",
        "reports/study_report/test_summary.py reports/study_report/test_wiring.py",
    ),
    Mutant(
        "rms-output-difference-for-largest",
        "reports/study_report/summary.py",
        "_largest(runs, metrics.OUTPUT_DIFFERENCE_MAX)",
        "_largest(runs, metrics.OUTPUT_DIFFERENCE_RMS)",
        "reports/study_report/test_summary.py reports/study_report/test_wiring.py",
    ),
    Mutant(
        "all-parameters-as-added",
        "reports/study_report/summary.py",
        "_first(runs, metrics.PARAMETERS_ADDED)",
        "_first(runs, metrics.PARAMETERS)",
        "reports/study_report/test_summary.py reports/study_report/test_wiring.py",
    ),
    Mutant(
        "tuning-runs-as-evidence",
        "reports/study_report/counted_runs.py",
        'if record.phase == "evaluate"\n            and record.seed < card.seeds',
        'if record.phase != "fit"',
        "reports/study_report/test_summary.py reports/study_report/test_wiring.py",
    ),
    Mutant(
        "curve-lowest-is-highest",
        "reports/study_report/summary.py",
        "lowest=tuple(min(by_step[step])",
        "lowest=tuple(max(by_step[step])",
        "reports/study_report/test_summary.py reports/study_report/test_wiring.py",
    ),
    Mutant(
        "fitted-region-mixed-up",
        "reports/study_report/fidelity.py",
        'region == first.notes.get("fitted_on", "")',
        'region != first.notes.get("fitted_on", "")',
        "reports/study_report/test_summary.py reports/study_report/test_wiring.py",
    ),
    Mutant(
        "controls-as-the-question",
        "reports/study_report/verdict_text.py",
        'if role(card, cell.cell) == "question"] or compared',
        "if card.arm(cell.cell.arm).uses_net] or compared",
        "reports/study_report/test_verdict_text.py reports/study_report/test_wiring.py",
    ),
    Mutant(
        "disagreement-hidden",
        "reports/study_report/verdict_text.py",
        'other.verdict in ("better", "worse") and',
        'other.verdict == "better" and',
        "reports/study_report/test_verdict_text.py reports/study_report/test_wiring.py",
    ),
    Mutant(
        "sign-flip-one-sided",
        "reports/statistics.py",
        "min(1.0, 2 * greater, 2 * less)",
        "min(1.0, greater, less)",
        "reports/test_statistics.py",
    ),
    Mutant(
        "equivalence-by-the-easier-side",
        "reports/statistics.py",
        "return max(test(list(values + margin)",
        "return min(test(list(values + margin)",
        "reports/test_statistics.py",
    ),
    Mutant(
        "interval-of-another-level",
        "reports/statistics.py",
        "return math.ceil(round(level * patterns / 2, 9)) - 1",
        "return math.ceil(round(level * patterns / 2, 9))",
        "reports/test_statistics.py",
    ),
    Mutant(
        "sign-test-not-asked",
        "reports/study_report/evidence.py",
        "return max(p_values + ([any_shape(self.differences)] if self.skewed else []))",
        "return max(p_values)",
        "reports/study_report/test_verdict.py",
    ),
    Mutant(
        "no-bad-run-supposed",
        "reports/study_report/evidence.py",
        "evidence.append(Evidence(tuple(differences), tuple(supposed)))",
        "evidence.append(Evidence(tuple(differences)))",
        "reports/study_report/test_verdict.py",
    ),
    Mutant(
        "adjusted-interval-is-plain",
        "reports/study_report/verdict.py",
        "strictest = cell.interval(self.level / self.planned)",
        "strictest = cell.interval(self.level)",
        "reports/study_report/test_verdict.py reports/study_report/test_wiring.py",
    ),
    Mutant(
        "control-beaten-by-any-difference",
        "reports/study_report/gain.py",
        "Control(control, share, certain and improved, compared)",
        "Control(control, share, improved, compared)",
        "reports/study_report/test_verdict_text.py",
    ),
    Mutant(
        "dearest-control-named",
        "reports/study_report/verdict_text.py",
        "cheapest = unbeaten[0]",
        "cheapest = unbeaten[-1]",
        "reports/study_report/test_verdict_text.py",
    ),
    Mutant(
        "dropped-arms-forgotten",
        "reports/records/schema.py",
        "plans = [plan for plan in (self.plan(), self.stated) if plan is not None]",
        "plans = [self.plan()]",
        "reports/study_report/test_plan.py",
    ),
    Mutant(
        "looks-take-the-whole-level",
        "reports/study_report/comparing.py",
        "level=LEVEL / max(1, len(card.looks)),",
        "level=LEVEL,",
        "reports/study_report/test_plan.py",
    ),
    Mutant(
        "first-plan-forgotten",
        "ablations/study/cards.py",
        "(before.stated or before.plan()) if before is not None and evaluated else card.plan()",
        "card.plan()",
        "ablations/study/test_study.py",
    ),
    Mutant(
        "holm-not-monotone",
        "reports/statistics.py",
        "largest = max(largest, min(1.0, (count - rank) * p_values[index]))",
        "largest = min(1.0, (count - rank) * p_values[index])",
        "reports/test_statistics.py",
    ),
    Mutant(
        "seed-floor-one-sided",
        "reports/statistics.py",
        "while 2 / 2**seeds >=",
        "while 1 / 2**seeds >=",
        "reports/test_statistics.py",
    ),
    Mutant(
        "page-checksums-off",
        "reports/records/store.py",
        "write_page_checksum=True",
        "write_page_checksum=False",
        "reports/records/test_store.py",
    ),
    Mutant(
        "checksums-not-verified",
        "reports/records/store.py",
        "page_checksum_verification=not whole",
        "page_checksum_verification=False",
        "reports/records/test_store.py",
    ),
    Mutant(
        "digest-without-metadata",
        "reports/records/tables.py",
        'hashlib.sha256(f"[{json.dumps(sorted(metadata.items()))}, [".encode())',
        'hashlib.sha256(b"[")',
        "reports/records/test_store.py",
    ),
    Mutant(
        "value-of-the-first-step",
        "reports/records/schema.py",
        "return max(measured, key=lambda m: m.step).value if measured else None",
        "return min(measured, key=lambda m: m.step).value if measured else None",
        "reports/study_report/test_summary.py",
    ),
    Mutant(
        "status-of-mirrored-runs",
        "reports/mirror/runs.py",
        '_MLFLOW_STATUS.get(record.status, "FAILED")',
        '_MLFLOW_STATUS.get(record.status, "FINISHED")',
        "reports/mirror/test_runs.py",
    ),
    Mutant(
        "mirrored-function-is-the-arm",
        "reports/mirror/runs.py",
        'names = {"function": record.cell.function,',
        'names = {"function": record.cell.arm,',
        "reports/mirror/test_runs.py",
    ),
    Mutant(
        "tuned-on-the-evaluation-split",
        "ablations/study/trained_runs.py",
        'return "tune" if request.phase == "tune" else "evaluate"',
        'return "evaluate"',
        "ablations/study/test_work.py",
    ),
    Mutant(
        "evaluated-on-the-tuning-split",
        "ablations/study/trained_runs.py",
        'return "tune" if request.phase == "tune" else "evaluate"',
        'return "tune"',
        "ablations/study/test_work.py",
    ),
    Mutant(
        "rms-recorded-as-largest",
        "ablations/study/trained_runs.py",
        "Measurement(metrics.OUTPUT_DIFFERENCE_MAX, record.output_difference_max)",
        "Measurement(metrics.OUTPUT_DIFFERENCE_MAX, record.output_difference_rms)",
        "ablations/study/test_work.py",
    ),
    Mutant(
        "trial-settings-ignored",
        "ablations/study/requests.py",
        "_changed(self.spec.training, of_training(self.settings),",
        "_changed(self.spec.training, {},",
        "ablations/study/test_work.py",
    ),
    Mutant(
        "every-fit-with-one-seed",
        "ablations/study/work.py",
        "name, size, seed, domain, shape)",
        "name, size, 0, domain, shape)",
        "ablations/study/test_work.py",
    ),
    Mutant(
        "every-run-uses-the-fit-of-seed-0",
        "ablations/study/work.py",
        "load_fitted(study.checkpoint(cell.net, seed))",
        "load_fitted(study.checkpoint(cell.net, 0))",
        "ablations/study/test_work.py",
    ),
    Mutant(
        "nets-saved-in-each-others-place",
        "ablations/study/work.py",
        "_save(outcome, study.checkpoint(net, seeds[index]))",
        "_save(outcome, study.checkpoint(net, seeds[-1 - index]))",
        "ablations/study/test_work.py",
    ),
    Mutant(
        "seed-of-the-model-dropped",
        "ablations/study/trained_runs.py",
        "model, record = build_model(study, request.cell, request.seed, task)",
        "model, record = build_model(study, request.cell, 0, task)",
        "ablations/study/test_work.py",
    ),
    Mutant(
        "worst-trial-is-best",
        "reports/study_report/tuning.py",
        "sign = -1 if metric.higher_is_better else 1",
        "sign = 1 if metric.higher_is_better else -1",
        "ablations/study/test_agenda.py reports/study_report/test_summary.py reports/study_report/test_tuning.py",
    ),
    Mutant(
        "trials-beyond-the-budget-count",
        "reports/study_report/tuning.py",
        "record.trial is not None and record.trial < budget",
        "record.trial is not None",
        "ablations/study/test_agenda.py reports/study_report/test_summary.py reports/study_report/test_tuning.py",
    ),
    Mutant(
        "one-tuning-seed-chooses",
        "reports/study_report/tuning.py",
        "float(np.mean(known)) if known else None",
        "known[0] if known else None",
        "ablations/study/test_agenda.py reports/study_report/test_summary.py reports/study_report/test_tuning.py",
    ),
    Mutant(
        "trials-that-lost-runs-can-be-best",
        "reports/study_report/tuning.py",
        "return trial.failures, 0.0",
        "return 0, 0.0",
        "ablations/study/test_agenda.py reports/study_report/test_summary.py reports/study_report/test_tuning.py",
    ),
    Mutant(
        "trials-count-before-their-last-seed",
        "reports/study_report/tuning.py",
        "if set(seeds) <= runs.keys():",
        "if set(seeds) & runs.keys():",
        "ablations/study/test_agenda.py reports/study_report/test_summary.py reports/study_report/test_tuning.py",
    ),
    Mutant(
        "gap-to-the-worst-trial",
        "reports/study_report/tuning.py",
        "best, other = ranked[0].values, ranked[1].values",
        "best, other = ranked[0].values, ranked[-1].values",
        "reports/study_report/test_tuning.py",
    ),
    Mutant(
        "edges-on-a-linear-scale",
        "reports/records/tuning_design.py",
        "value, low, high = math.log(value), math.log(self.low), math.log(self.high)",
        "low, high = self.low, self.high",
        "reports/study_report/test_tuning.py ablations/study/test_tuner.py",
    ),
    Mutant(
        "edges-of-settings-that-do-nothing",
        "reports/study_report/tuning.py",
        "and (slot_moves or not tuned.name.startswith(_OF_SLOTS))",
        "",
        "reports/study_report/test_tuning.py",
    ),
    Mutant(
        "spread-of-fits-as-their-mean",
        "reports/study_report/fidelity.py",
        "_over_fits(lambda values: np.std(values, ddof=1), errors)",
        "_over_fits(np.mean, errors)",
        "reports/study_report/test_tuning.py",
    ),
    Mutant(
        "runs-of-two-budgets",
        "reports/study_report/counted_runs.py",
        "if complete else []",
        "",
        "reports/study_report/test_summary.py",
    ),
    Mutant(
        "failed-fit-counts-as-fit",
        "ablations/study/agenda.py",
        'return fit is not None and fit.status == "ok"',
        "return fit is not None",
        "ablations/study/test_agenda.py",
    ),
    Mutant(
        "net-size-left-out-of-run-ids",
        "ablations/study/requests.py",
        'self.spec.net(cell.net).model_dump(mode="json") if cell.net else None',
        "cell.net",
        "ablations/study/test_agenda.py ablations/study/test_spec.py",
    ),
    Mutant(
        "seed-left-out-of-run-ids",
        "ablations/study/requests.py",
        '"seed": seed,',
        '"seed": 0,',
        "ablations/study/test_agenda.py",
    ),
    Mutant(
        "tuning-seed-is-an-evaluation-seed",
        "ablations/study/tuning_section.py",
        "first = SEEDS_APART * (self.seed + time + 1)",
        "first = SEEDS_APART * (self.seed + time)",
        "ablations/study/test_spec.py",
    ),
    Mutant(
        "tuning-seeds-are-shared",
        "ablations/study/tuning_section.py",
        "first = SEEDS_APART * (self.seed + time + 1)",
        "first = SEEDS_APART + self.seed + time",
        "ablations/study/test_spec.py",
    ),
    Mutant(
        "one-seed-for-every-sampler",
        "ablations/study/proposals.py",
        'derived_seed(spec.tuning.seed + time, str(cell), cell.function, "sampler")',
        'derived_seed(0, "sampler")',
        "ablations/study/test_proposals.py",
    ),
    Mutant(
        "generation-of-one",
        "ablations/study/proposals.py",
        "tuning.trials if tuning.sampler.name in _WITHOUT_RESULTS else tuning.generation",
        "1",
        "ablations/study/test_proposals.py",
    ),
    Mutant(
        "diverged-trial-told-as-a-number",
        "ablations/study/proposals.py",
        "self._study.tell(trial, state=TrialState.FAIL)",
        "self._study.tell(trial, [1e9])",
        "ablations/study/test_proposals.py",
    ),
    Mutant(
        "pruner-knows-its-own-generation",
        "ablations/study/agenda.py",
        "if other.trial is not None and other.trial < first and other.seed == run.seed",
        "if other.trial is not None and other.trial < (run.trial or 0) and other.run_id in self.finished "
        "and other.seed == run.seed",
        "ablations/study/test_pruning.py",
    ),
    Mutant(
        "dearest-of-the-good-ones",
        "reports/study_report/tuning.py",
        "chosen = min(near, key=cost)",
        "chosen = max(near, key=cost)",
        "reports/study_report/test_tuning.py",
    ),
    Mutant(
        "fits-of-every-size-are-one",
        "ablations/study/requests.py",
        "parameters=shapes_runs(parameters or {}))",
        "parameters={})",
        "ablations/study/test_space.py",
    ),
    Mutant(
        "every-time-tuned-alike",
        "ablations/study/requests.py",
        "spec.tuning.seed + time, spec.trials()",
        "spec.tuning.seed, spec.trials()",
        "ablations/study/test_agenda.py",
    ),
    Mutant(
        "second-tuning-evaluated-by-the-first",
        "ablations/study/agenda.py",
        "settings = {cell: self._best(cell, time, budget) for",
        "settings = {cell: self._best(cell, 0, budget) for",
        "ablations/study/test_agenda.py",
    ),
    Mutant(
        "half-a-tuning-changes-words",
        "reports/study_report/summary.py",
        "if all(len(of_cell) == card.seeds for of_cell in runs.values()):\n            yield runs",
        "if any(runs.values()):\n            yield runs",
        "reports/study_report/test_tuning.py",
    ),
    Mutant(
        "control-beaten-once-is-beaten",
        "reports/study_report/gain.py",
        "all(control.beaten for control in found)",
        "any(control.beaten for control in found)",
        "reports/study_report/test_tuning.py",
    ),
    Mutant(
        "bisection-forgets-what-was-stated",
        "ablations/study/agenda.py",
        "replace(self.study.card(), stated=self._stated)",
        "self.study.card()",
        "ablations/study/test_error_budget.py",
    ),
    Mutant(
        "fit-of-another-seed",
        "ablations/study/sections.py",
        'return run_seed if self.seeds == "per-run" else self.seed',
        "return self.seed",
        "ablations/study/test_agenda.py ablations/study/test_work.py",
    ),
    Mutant(
        "words-corrected-within-a-block",
        "reports/records/schema.py",
        "return self.own_words() if self.together is None else self.together",
        "return self.own_words()",
        "reports/study_report/test_blocks.py",
    ),
    Mutant(
        "blocks-summed-up-from-all-runs",
        "reports/study_report/blocks.py",
        "[run for run in results.records if run.spec_hash == card.spec_hash]",
        "list(results.records)",
        "reports/study_report/test_blocks.py",
    ),
    Mutant(
        "speeds-measured-amid-other-blocks",
        "ablations/study/grid_agenda.py",
        'if requests and requests[0].phase != "throughput":',
        "if requests:",
        "ablations/study/test_grid_agenda.py",
    ),
    Mutant(
        "every-arm-with-every-net-of-the-cells",
        "ablations/study/grid.py",
        '"pairs": list(pairs) if everything != pairs.keys() else [],',
        '"pairs": [],',
        "ablations/study/test_grid.py",
    ),
    Mutant(
        "parents-keys-win",
        "ablations/settings/extends.py",
        "return merged({key: value for key, value in below.items() if key not in _OWN}, content)",
        "return merged(content, {key: value for key, value in below.items() if key not in _OWN})",
        "ablations/study/test_grid.py",
    ),
    Mutant(
        "dropped-blocks-are-forgotten",
        "ablations/study/cards.py",
        "before = [block for card in stored[:1] for block in card.dropped]",
        "before: list[DroppedBlock] = []",
        "ablations/study/test_grid_study.py",
    ),
    Mutant(
        "direction-of-tuning-swapped",
        "ablations/study/proposals.py",
        "StudyDirection.MAXIMIZE if higher else StudyDirection.MINIMIZE",
        "StudyDirection.MINIMIZE if higher else StudyDirection.MAXIMIZE",
        "ablations/study/test_optuna_database.py",
    ),
    Mutant(
        "failed-trials-complete-in-optuna",
        "ablations/study/optuna_database.py",
        "TrialState.FAIL if trial.failures else TrialState.COMPLETE",
        "TrialState.COMPLETE",
        "ablations/study/test_optuna_database.py",
    ),
    Mutant(
        "trials-are-stored-out-of-order",
        "ablations/study/optuna_database.py",
        "if trial.number != kept.count:",
        "if trial.number < kept.count:",
        "ablations/study/test_optuna_database.py",
    ),
    Mutant(
        "best-trial-by-one-of-several-objectives",
        "ablations/study/optuna_database.py",
        "weighing = self._spec.weighing()",
        "weighing = None",
        "ablations/study/test_optuna_database.py",
    ),
    Mutant(
        "members-are-clipped-together",
        "ablations/training/array.py",
        "whole = torch.stack(list(by_group.values())).norm(dim=0)",
        "whole = torch.stack(list(by_group.values())).norm().expand(len(self.members))",
        "ablations/training/test_array.py",
    ),
    Mutant(
        "members-share-one-rate",
        "ablations/training/array.py",
        "for row, member in enumerate(self.members):\n            moves",
        "for row, member in enumerate(self.members[:1] * len(self.members)):\n            moves",
        "ablations/training/test_array.py",
    ),
    Mutant(
        "members-share-their-data",
        "ablations/training/array.py",
        "member.seed, config.batch, split, start=step_once.steps",
        "members[0].seed, config.batch, split, start=step_once.steps",
        "ablations/training/test_array.py",
    ),
    Mutant(
        "array-goes-on-with-the-first-data",
        "ablations/training/array.py",
        "split, start=step_once.steps",
        "split, start=0",
        "ablations/training/test_array.py",
    ),
    Mutant(
        "positions-of-the-first-member",
        "ablations/training/stacked.py",
        "values = [member._positions(length, device, cache) for member in self.members]",
        "values = [self.members[0]._positions(length, device, cache) for member in self.members]",
        "ablations/training/test_array.py",
    ),
    Mutant(
        "alike-though-their-sizes-differ",
        "ablations/study/together.py",
        "shapes = json.dumps(shapes_runs(request.parameters), sort_keys=True)",
        'shapes = ""',
        "ablations/study/test_together.py",
    ),
    Mutant(
        "arrays-though-they-are-slower",
        "ablations/study/trained_runs.py",
        "if in_array >= count * by_itself:",
        "if in_array >= 2 * count * by_itself:",
        "ablations/study/test_together.py",
    ),
    Mutant(
        "settings-of-another-kind-of-net",
        "ablations/study/spec.py",
        "lacking = of_nets(own).keys() - set(options_of(kind))",
        "lacking = set[str]()",
        "ablations/study/test_space.py",
    ),
    Mutant(
        "chosen-within-the-whole-margin",
        "reports/study_report/tuning.py",
        "ranked[0].mean + weighing.margin / 2",
        "ranked[0].mean + weighing.margin",
        "reports/study_report/test_tuning.py ablations/study/test_proposals.py",
    ),
    Mutant(
        "fits-of-every-trial-are-shown",
        "reports/study_report/counted_runs.py",
        "return [fit for fit in fits if not fit.parameters or (fit.cell.net, dict(fit.parameters)) in best]",
        "return fits",
        "reports/study_report",
    ),
    Mutant(
        "fail-fast-starts-what-waits",
        "ablations/study/coordinator.py",
        'failed.")\n                self._executor.forget_waiting()',
        'failed.")',
        "ablations/study/test_coordinator.py",
    ),
    Mutant(
        "given-back-after-a-stop-and-begun-anew",
        "ablations/study/executors/arrays.py",
        "if self._forgetting:",
        "if False:",
        "ablations/study/executors/test_arrays.py",
    ),
    Mutant(
        "killed-arrays-are-not-found",
        "ablations/study/executors/arrays.py",
        "if unit := self._begun_before():",
        "if unit := ():",
        "ablations/study/executors/test_arrays.py",
    ),
    Mutant(
        "an-array-that-died-is-told-as-it-is",
        "ablations/study/executors/arrays.py",
        "if isinstance(event, Died) and len(requests) > 1 and key is not None:",
        "if False:",
        "ablations/study/executors/test_arrays.py",
    ),
    Mutant(
        "probed-though-it-was-begun",
        "ablations/study/trained_runs.py",
        "if not path.exists():",
        "if True:",
        "ablations/study/test_together.py",
    ),
    Mutant(
        "workers-commands-take-themselves-for-the-server",
        "ablations/study/executors/server.py",
        "os.environ.pop(STARTER, None)",
        "os.environ.get(STARTER)",
        "ablations/study/executors/test_server.py",
    ),
    Mutant(
        "runs-are-never-stopped",
        "ablations/study/trained_runs.py",
        "prune=pruner_of(study, request),",
        "prune=None,",
        "ablations/study/test_work.py",
    ),
    Mutant(
        "evaluations-are-stopped-too",
        "ablations/study/trained_runs.py",
        'if request.phase != "tune" or study.spec.tuning.pruner.name in ("none", BY_SEED):',
        'if study.spec.tuning.pruner.name in ("none", BY_SEED):',
        "ablations/study/test_work.py",
    ),
    Mutant(
        "net-of-the-studys-own-size",
        "ablations/study/work.py",
        "settings = {**study.spec.own_settings(net), **study.settings}",
        "settings = study.spec.own_settings(net)",
        "ablations/study/test_work.py ablations/study/test_space.py",
    ),
    Mutant(
        "best-trial-stays-the-first",
        "ablations/study/optuna_database.py",
        "if best is not kept.best:\n                    kept.study",
        "if kept.best is None:\n                    kept.study",
        "ablations/study/test_optuna_database.py",
    ),
    Mutant(
        "killed-run-not-begun-anew",
        "ablations/study/coordinator.py",
        "_STARTS = 3",
        "_STARTS = 1",
        "faults/test_kill.py",
    ),
    Mutant(
        "database-trusted-but-for-its-values",
        "ablations/study/optuna_database.py",
        "*(trial.number, trial.state, trial.values, trial.params, trial.distributions),",
        "*(trial.number, trial.state, trial.values, trial.params),",
        "faults/test_flipped_bits.py",
    ),
    Mutant(
        "checkpoint-without-its-digest",
        "reports/sealed_tensors.py",
        "if hashlib.sha256(whole).hexdigest() != digest:",
        "if False:",
        "faults/test_flipped_bits.py",
    ),
    Mutant(
        "bundle-trusted-whatever-its-name",
        "reports/records/bundles.py",
        "return name.startswith(_PREFIX) and name == bundle_name(content)",
        "return name.startswith(_PREFIX)",
        "reports/records/test_bundles.py faults/test_flipped_bits.py",
    ),
    Mutant(
        "code-elsewhere-allowed",
        "ablations/code_policy.py",
        "if not policy.allowed and not Path(file).resolve().is_relative_to(folder):",
        "if not policy.allowed and not Path(file).exists():",
        "ablations/test_code_policy.py",
    ),
    Mutant(
        "packed-names-unchecked",
        "reports/records/packed.py",
        "if not _MEMBER.fullmatch(member.filename):",
        "if not _MEMBER.search(member.filename):",
        "faults/test_fuzz.py",
    ),
    Mutant(
        "reproduced-times-compared",
        "ablations/study/reproduce.py",
        '_TIMES = ("s", "µs", "tokens/s")',
        '_TIMES = ("µs", "tokens/s")',
        "ablations/cli/test_reproduce.py",
    ),
    Mutant(
        "database-address-in-results",
        "ablations/study/spec.py",
        'exclude={"storage"}',
        "exclude=set()",
        "ablations/study/test_storage.py",
    ),
    Mutant(
        "password-within-an-address-not-encoded",
        "ablations/study/storage.py",
        'variables[name] if match[0] == self.url else quote(variables[name], safe="")',
        "variables[name]",
        "ablations/study/test_storage.py",
    ),
    Mutant(
        "importance-of-trials-that-diverged",
        "reports/study_report/importances.py",
        "if not trial.failures]",
        "if trial.mean is not None or trial.failures]",
        "reports/study_report/test_importances.py",
    ),
    Mutant(
        "first-trial-is-drawn",
        "ablations/study/tuner.py",
        "return (first, *drawn)",
        "return (*drawn, first)",
        "ablations/study/test_tuner.py",
    ),
    Mutant(
        "settings-are-confounded",
        "ablations/study/tuner.py",
        "for candidate in range(_CANDIDATES if columns else 1):",
        "for candidate in range(1):",
        "ablations/study/test_tuner.py",
    ),
    Mutant(
        "settings-are-the-same-for-every-seed",
        "ablations/study/tuner.py",
        'derived_seed(seed, "tuning", dimension, candidate)',
        'derived_seed(0, "tuning", dimension, candidate)',
        "ablations/study/test_tuner.py",
    ),
    Mutant(
        "margin-changes-no-conditions",
        "ablations/study/spec.py",
        '("seeds", "target", "margins", "looks")',
        '("seeds", "target", "margins", "looks", "margin")',
        "ablations/study/test_spec.py",
    ),
    Mutant(
        "data-change-no-conditions",
        "ablations/study/spec.py",
        'shared["task"] |= {"source": fingerprint}',
        'shared["task"] |= {"source": ""}',
        "ablations/study/test_spec.py ablations/study/test_agenda.py",
    ),
    Mutant(
        "trials-not-told-to-optuna",
        "ablations/study/coordinator.py",
        'if record.phase == "tune":',
        'if record.phase == "fit":',
        "ablations/study/test_study.py -koptuna_holds",
    ),
)


def stale(mutant: Mutant) -> bool:
    """Return whether the text that the mutant replaces doesn't stand exactly once in its file."""
    return (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.old) != 1


def make_copy(folder: Path) -> Path:
    """Copy the four floors to where `trans4init.…` is imported from when `folder` is on PYTHONPATH."""
    for floor in FLOORS:
        shutil.copytree(ROOT / floor, folder / "trans4init" / floor, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def is_killed(mutant: Mutant, copy: Path) -> bool:
    """Plant the mutant in the copy, run its tests, restore the copy; return whether they failed."""
    path = copy / "trans4init" / mutant.file
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    words = [word if word.startswith("-") else f"tests/{word}" for word in mutant.tests.split()]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *words],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIME_LIMIT,
        )
    except subprocess.TimeoutExpired:
        return True
    finally:
        path.write_text(text, encoding="utf-8")
    if done.returncode not in (0, 1):
        raise RuntimeError(f"the tests of {mutant.name} could not be run:\n{done.stdout}{done.stderr}")
    return done.returncode == 1


def main(names: list[str]) -> int:
    """Run the mutants, all unless some are named; print each one's fate; the exit code."""
    unknown = set(names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        print(f"There is no mutant called {', '.join(sorted(unknown))}.", file=sys.stderr)
        return 2
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    outdated = [mutant.name for mutant in chosen if stale(mutant)]
    if outdated:
        print(f"The text that these replace is no longer there once: {', '.join(outdated)}.", file=sys.stderr)
        return 1
    workers = os.cpu_count() or 1
    copies: SimpleQueue[Path] = SimpleQueue()
    survivors = []
    with tempfile.TemporaryDirectory(prefix="trans4init-mutants-") as folder, ThreadPoolExecutor(workers) as pool:
        for number in range(workers):
            copies.put(make_copy(Path(folder) / str(number)))

        def run(mutant: Mutant) -> bool:
            copy = copies.get()
            try:
                return is_killed(mutant, copy)
            finally:
                copies.put(copy)

        for mutant, died in zip(chosen, pool.map(run, chosen), strict=True):
            print(f"{'killed  ' if died else 'SURVIVED'}  {mutant.name}  ({mutant.file})", flush=True)
            if not died:
                survivors.append(mutant)
    share = 1 - len(survivors) / len(chosen)
    print(
        f"{len(chosen) - len(survivors)} of {len(chosen)} killed ({share:.0%}; at least {KILLED_AT_LEAST:.0%} is asked)"
    )
    return int(share < KILLED_AT_LEAST)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
