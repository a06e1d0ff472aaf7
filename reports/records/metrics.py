"""Define the metrics that several tasks share. A task defines its own metrics beside the code that measures them."""

from trans4init.reports.records.schema import Metric

TRAINING_LOSS = Metric("training_loss", "nats/token", higher_is_better=False)
VALIDATION_LOSS = Metric("validation_loss", "nats/token", higher_is_better=False)

PERPLEXITY = Metric("perplexity", "1")
"""exp of the validation loss. It has no better direction, so that it is shown and not judged: the loss is judged."""
GRADIENT_NORM = Metric("gradient_norm", "loss per parameter unit")
"""Before clipping; measured at the steps at which the training loss is."""

ACCURACY = Metric("accuracy", "1", higher_is_better=True)
MACRO_F1 = Metric("macro_f1", "1", higher_is_better=True)
MAJORITY_ACCURACY = Metric("majority_accuracy", "1")
"""The accuracy of always naming the most frequent class of the training split."""
EXACT_MATCH = Metric("exact_match", "1", higher_is_better=True)
"""The share of examples whose every token is right, each predicted from the true tokens before it (teacher forcing)."""
GENERATED_EXACT_MATCH = Metric("generated_exact_match", "1", higher_is_better=True)
"""The same with each token predicted from the tokens that the model itself wrote before it."""
BLEU = Metric("bleu", "BLEU", higher_is_better=True)

OUTPUT_DIFFERENCE_MAX = Metric("output_difference_max", "logits")
"""The largest change of a logit when the arm takes the closed form's place, before the first training step."""
OUTPUT_DIFFERENCE_RMS = Metric("output_difference_rms", "logits")
"""The root mean square of that change over all logits."""

SLOT_DRIFT_MAX = Metric("slot_drift_max", "function values")
"""The largest distance of the slot's output from the analytic function on the inputs that the slot is trained on."""
SLOT_DRIFT_RMS = Metric("slot_drift_rms", "function values")
"""The root mean square of that distance."""
SLOT_INPUT_LOW = Metric("slot_input_low", "function inputs")
SLOT_INPUT_HIGH = Metric("slot_input_high", "function inputs")

PARAMETERS = Metric("parameters", "count")
"""Of the whole model, the slot included."""
PARAMETERS_ADDED = Metric("parameters_added", "count")
"""Of the slot alone."""
WALL_TIME = Metric("wall_time", "s")
"""Since the run or the throughput session began, by step or round; at the last, that of the whole run."""
PROCESSOR_TIME = Metric("processor_time", "s")
"""Of all threads of the process; other processes don't lengthen it."""

TRAINING_THROUGHPUT = Metric("training_throughput", "tokens/s", higher_is_better=True)
"""Of forward pass, backward pass and optimiser step; one row per interleaved round, whose number is `step`."""
FORWARD_THROUGHPUT = Metric("forward_throughput", "tokens/s", higher_is_better=True)
"""Of the forward pass alone, likewise."""
OTHERS_SHARE = Metric("others_share", "1")
"""The share of the machine's processor time that other processes used while speed was measured."""

NET_PARAMETERS = Metric("net_parameters", "count")
NET_FLOPS = Metric("net_flops", "FLOP/input")
CALL_TIME = Metric("call_time", "µs")
FOLDED_CALL_TIME = Metric("folded_call_time", "µs")
"""Of the net's folded form, a faster one that computes the same values."""
ANALYTIC_CALL_TIME = Metric("analytic_call_time", "µs")
"""Of the closed form on the same inputs, as a slot holds it."""
FIT_TIME = Metric("fit_time", "s")
FIT_LOSS = Metric("fit_loss", "function values²")
FITTED_ERROR = Metric("fitted_error", "function values")
"""The largest error of a net of an error budget in its domain, which is what the budget's metric is drawn against."""
RELATIVE_FITTED_ERROR = Metric("fitted_error", "1")
"""The same over the function's value, for functions whose values matter by their ratios."""

LATENCY = Metric("latency", "ms", higher_is_better=False)
"""Of one call of an implementation; one row per interleaved round, whose number is `step`."""
CONTENDED = Metric("contended", "1")
"""1 for a sample that lost its processor meanwhile, or in whose round other processes used the machine or the GPU was
slowed down; else 0."""
INTERRUPTED = Metric("interrupted", "1")
"""1 for a sample during which the system gave its processor to another process; else 0."""
LOAD_AVERAGE = Metric("load_average", "processes")
CLOCK = Metric("clock", "MHz")
"""Of the GPU's multiprocessors while the round was measured; without a GPU, the mean of the processor's cores."""
TEMPERATURE = Metric("temperature", "°C")
"""The highest of the GPU; without a GPU, of the processor."""
FIRST_CALL_TIME = Metric("first_call_time", "s", higher_is_better=False)
"""Of preparation and first call, with compilation and autotuning."""
PEAK_MEMORY = Metric("peak_memory", "byte", higher_is_better=False)
"""The most memory that one call holds at a time beyond its inputs, with what it keeps for a backward pass."""
LEAST_FLOP = Metric("least_flop", "FLOP")
"""The fewest operations with which any implementation could compute the operator."""
LEAST_BYTES = Metric("least_bytes", "byte")
"""The fewest bytes that any implementation has to read and write."""
TOKENS_PER_CALL = Metric("tokens_per_call", "tokens")
RUNS_PER_CALL = Metric("runs_per_call", "runs")
MATMUL_RATE = Metric("matmul_rate", "FLOP/s")
"""Of PyTorch's product of two large matrices, measured on the same machine in the same run."""
COPY_RATE = Metric("copy_rate", "byte/s")
"""Bytes read and written by a large copy, measured likewise."""


def over_region(quantity: str, region: str) -> Metric:
    """Return the metric of a net's error on one region of its inputs, such as `rms_error/0..127`."""
    unit = "ulp" if "ulp" in quantity else "1" if "relative" in quantity else "function values"
    return Metric(f"{quantity}/{region}", unit, higher_is_better=False)


def of_group(metric: Metric, name: str) -> Metric:
    """Return the same metric of one group, such as `gradient_norm/matrices` or `exact_match/length_7`."""
    return Metric(f"{metric.name}/{name}", metric.unit, metric.higher_is_better)


def at_context(metric: Metric, multiple: int) -> Metric:
    """Return the same metric at a multiple of the trained context, such as `validation_loss_4x`."""
    return Metric(f"{metric.name}_{multiple}x", metric.unit, metric.higher_is_better)


def in_slot(metric: Metric, path: str) -> Metric:
    """Return the same metric of one slot, such as `slot_input_high/blocks.0.feed_forward.activation`."""
    return Metric(f"{metric.name}/{path}", metric.unit, metric.higher_is_better)
