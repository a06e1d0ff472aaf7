"""The metrics that every task shares. A task's own metrics are `Metric` values beside the code that measures them."""

from trans4init.reports.records.schema import Metric

TRAINING_LOSS = Metric("training_loss", "nats/token", higher_is_better=False)
VALIDATION_LOSS = Metric("validation_loss", "nats/token", higher_is_better=False)

PERPLEXITY = Metric("perplexity", "1")
"""exp of the validation loss: described, since the loss itself is judged."""
GRADIENT_NORM = Metric("gradient_norm", "loss per parameter unit")
"""Before clipping, at the step of the row of training loss."""

ACCURACY = Metric("accuracy", "1", higher_is_better=True)
MACRO_F1 = Metric("macro_f1", "1", higher_is_better=True)
MAJORITY_ACCURACY = Metric("majority_accuracy", "1")
"""What naming the most frequent class of the training split every time would score."""
EXACT_MATCH = Metric("exact_match", "1", higher_is_better=True)
"""Share of examples with every token right, each predicted from the right ones before it (teacher-forced)."""
GENERATED_EXACT_MATCH = Metric("generated_exact_match", "1", higher_is_better=True)
"""The same with each token predicted from the model's own ones before it."""
BLEU = Metric("bleu", "BLEU", higher_is_better=True)

OUTPUT_DIFFERENCE_MAX = Metric("output_difference_max", "logits")
"""Largest change of the model's output when the arm is put in, before the first step."""
OUTPUT_DIFFERENCE_RMS = Metric("output_difference_rms", "logits")

SLOT_DRIFT_MAX = Metric("slot_drift_max", "function values")
"""Largest distance between the slot's output and the analytic function on the inputs the slot is trained on."""
SLOT_DRIFT_RMS = Metric("slot_drift_rms", "function values")
SLOT_INPUT_LOW = Metric("slot_input_low", "function inputs")
SLOT_INPUT_HIGH = Metric("slot_input_high", "function inputs")

PARAMETERS = Metric("parameters", "count")
PARAMETERS_ADDED = Metric("parameters_added", "count")
WALL_TIME = Metric("wall_time", "s")
PROCESSOR_TIME = Metric("processor_time", "s")
"""Of all threads of the process: what a run takes, whatever else the machine does meanwhile."""

TRAINING_THROUGHPUT = Metric("training_throughput", "tokens/s", higher_is_better=True)
"""Forward, backward and optimiser step; one row per interleaved round, `step` is the round."""
FORWARD_THROUGHPUT = Metric("forward_throughput", "tokens/s", higher_is_better=True)
OTHERS_SHARE = Metric("others_share", "1")
"""Share of the machine's processor time that other processes used while speed was measured."""

NET_PARAMETERS = Metric("net_parameters", "count")
NET_FLOPS = Metric("net_flops", "FLOP/input")
CALL_TIME = Metric("call_time", "µs")
FOLDED_CALL_TIME = Metric("folded_call_time", "µs")
ANALYTIC_CALL_TIME = Metric("analytic_call_time", "µs")
"""A call of the closed form on the same inputs, as a slot holds it."""
FIT_TIME = Metric("fit_time", "s")
FIT_LOSS = Metric("fit_loss", "function values²")

LATENCY = Metric("latency", "ms", higher_is_better=False)
"""One call of an implementation; one row per interleaved round, `step` is the round."""
CONTENDED = Metric("contended", "1")
"""1 for a sample whose processor was taken away meanwhile, or in whose round others used the machine, or its GPU was
slowed down."""
INTERRUPTED = Metric("interrupted", "1")
"""1 for a sample during which the system took a processor away from it to give it to another process."""
LOAD_AVERAGE = Metric("load_average", "processes")
CLOCK = Metric("clock", "MHz")
"""Of the GPU's multiprocessors, else the mean of the processor's cores, while the round was measured."""
TEMPERATURE = Metric("temperature", "°C")
"""The highest of the GPU, else of the processor."""
FIRST_CALL_TIME = Metric("first_call_time", "s", higher_is_better=False)
"""Preparation and first call: compilation and autotuning are in it."""
PEAK_MEMORY = Metric("peak_memory", "byte", higher_is_better=False)
"""The most that one call holds at a time above its inputs, with what a backward pass or a training step needs kept."""
LEAST_FLOP = Metric("least_flop", "FLOP")
"""What the operator needs at least, whoever does it."""
LEAST_BYTES = Metric("least_bytes", "byte")
TOKENS_PER_CALL = Metric("tokens_per_call", "tokens")
RUNS_PER_CALL = Metric("runs_per_call", "runs")
MATMUL_RATE = Metric("matmul_rate", "FLOP/s")
"""Of PyTorch's own product of two large matrices on this machine, in the same run."""
COPY_RATE = Metric("copy_rate", "byte/s")
"""Bytes read and written by a large copy on this machine, in the same run."""


def over_region(quantity: str, region: str) -> Metric:
    """An error of a net on one region of its inputs, such as `rms_error/0..127`."""
    unit = "ulp" if "ulp" in quantity else "1" if "relative" in quantity else "function values"
    return Metric(f"{quantity}/{region}", unit, higher_is_better=False)


def of_group(metric: Metric, name: str) -> Metric:
    """The same metric of one group, such as `gradient_norm/matrices` or `exact_match/length_7`."""
    return Metric(f"{metric.name}/{name}", metric.unit, metric.higher_is_better)


def at_context(metric: Metric, multiple: int) -> Metric:
    """The same metric at a multiple of the trained context, such as `validation_loss_4x`."""
    return Metric(f"{metric.name}_{multiple}x", metric.unit, metric.higher_is_better)


def in_slot(metric: Metric, path: str) -> Metric:
    """The same metric of one slot of a model, such as `slot_input_high/blocks.0.feed_forward.activation`."""
    return Metric(f"{metric.name}/{path}", metric.unit, metric.higher_is_better)
