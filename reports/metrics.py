"""The metrics that every task shares. A task's own metrics are `Metric` values beside the code that measures them."""

from trans4init.reports.schema import Metric

TRAINING_LOSS = Metric("training_loss", "nats/token", higher_is_better=False)
VALIDATION_LOSS = Metric("validation_loss", "nats/token", higher_is_better=False)

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


def over_region(quantity: str, region: str) -> Metric:
    """An error of a net on one region of its inputs, such as `rms_error/0..127`."""
    unit = "ulp" if "ulp" in quantity else "1" if "relative" in quantity else "function values"
    return Metric(f"{quantity}/{region}", unit, higher_is_better=False)


def at_context(metric: Metric, multiple: int) -> Metric:
    """The same metric at a multiple of the trained context, such as `validation_loss_4x`."""
    return Metric(f"{metric.name}_{multiple}x", metric.unit, metric.higher_is_better)


def in_slot(metric: Metric, path: str) -> Metric:
    """The same metric of one slot of a model, such as `slot_input_high/blocks.0.feed_forward.activation`."""
    return Metric(f"{metric.name}/{path}", metric.unit, metric.higher_is_better)
